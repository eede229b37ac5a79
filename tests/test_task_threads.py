"""Tasks side by side on threads: the same results as one after the other, whoever is faster."""

import threading
import time

import pytest
import torch
from gradient_toys import draw_tasks, smooth
from torch import nn

from kshot.backbones.task_threads import in_this_thread, map_on_threads
from kshot.learners import InitializationLearner, learners

ADAPTING = sorted(name for name in learners if issubclass(learners[name], InitializationLearner) and name != "anil")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def names_of_threads(monkeypatch):
    """The names of the threads in which learners call their networks."""
    original, names = InitializationLearner.outputs, set()

    def outputs(self, *arguments, **options):
        names.add(threading.current_thread().name.rpartition("_")[0])
        return original(self, *arguments, **options)

    monkeypatch.setattr(InitializationLearner, "outputs", outputs)
    return names


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ADAPTING)
def test_side_by_side_equals_one_after_the_other(name, names_of_threads):
    seen = []
    for at_once in (1, None, None, None):
        names_of_threads.clear()
        learner = smooth(learners[name], tasks_at_once=at_once)
        measured = learner.accumulate_gradients(draw_tasks(12))
        gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
        kept = dict(learner.named_buffers())
        with torch.inference_mode():
            scores = learner.eval().scores(draw_tasks(12))
        seen.append((measured, gradients, kept, scores))
        assert names_of_threads == {"" if at_once else "kshot-tasks"}
    alone, *aside = seen
    torch.testing.assert_close(aside[0], alone, rtol=1e-12, atol=1e-14)
    for again in aside[1:]:
        torch.testing.assert_close(again, aside[0], rtol=0, atol=0)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("reason", ["somebody's own backbone", "dropout", "compiled"])
def test_what_threads_would_disturb_stays_in_one(reason, names_of_threads):
    learner = smooth(learners["maml"])
    if reason == "dropout":
        learner.network.backbone.extra = nn.Dropout(0.1)
    elif reason == "compiled":
        learner.network.backbone.compile(backend="eager")
    else:
        learner.network.backbone.threads_at_once = False
    learner.accumulate_gradients(draw_tasks(3))
    assert names_of_threads == {""}


@pytest.mark.usefixtures("two_threads")
def test_parts_run_at_the_same_time_and_come_in_their_order():
    both_here = threading.Barrier(2, timeout=20)

    def work(part):
        both_here.wait()  # which a single thread would never leave
        time.sleep(0.01 * (1 - part % 2))  # the first one ends last
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            assert list(map_on_threads(work, range(4))) == [(part, 1, recorded) for part in range(4)]
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


@pytest.mark.usefixtures("two_threads")
def test_an_exception_ends_the_work_in_order():
    begun = []

    def work(part):
        begun.append(part)
        time.sleep(0.2 * (part == 0))
        if part == 1:
            raise ZeroDivisionError
        return part

    results = map_on_threads(work, range(100))
    assert next(results) == 0
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert begun == [0, 1], "the exception came while part 0 was at work"


@pytest.mark.usefixtures("two_threads")
def test_no_more_is_begun_than_is_asked_for():
    begun = []
    results = map_on_threads(begun.append, range(100))
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 4
    results.close()
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count


@pytest.mark.usefixtures("two_threads")
def test_autocast_reaches_the_threads():
    def work(_):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    assert set(map_on_threads(work, range(4))) == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert set(map_on_threads(work, range(4))) == {torch.bfloat16}


@pytest.mark.usefixtures("two_threads")
def test_a_network_has_modules_for_each_thread_around_the_same_weights():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert in_this_thread(network) is network
    for training in (True, False):
        network[0] = nn.Linear(2, 2 + training)  # whoever changes a network meets no copy from before
        network.train(training)
        for own in map_on_threads(lambda _: in_this_thread(network), range(2)):
            assert own is not network
            assert own[0].out_features == network[0].out_features
            assert all(mine is theirs for mine, theirs in zip(own.parameters(), network.parameters(), strict=True))
            assert own[1].running_mean is network[1].running_mean
            assert [module.training for module in own.modules()] == [training] * 3
