"""Dropout and DropBlock: shares, blocks against a naive loop, the ramp, and masks that belong to the task."""

import numpy as np
import pytest
import torch

from kshot.backbones import DropBlock, Dropout, ResNet12, batch_of_tasks
from kshot.backbones.task_batch import uniform_like
from kshot.data.episodes import Episodes
from kshot.learners import MAML

KEYS = np.array([7, 2**64 - 1, 3, 7], np.uint64)


def full_ramp(rate: float, size: int) -> DropBlock:
    layer = DropBlock(rate, size=size, ramp_tasks=10)
    layer.training_tasks.fill_(1000)
    return layer


@pytest.mark.parametrize("keys", [None, KEYS])
def test_dropout_drops_its_rate_and_keeps_the_mean(keys):
    torch.manual_seed(0)
    with batch_of_tasks(4, keys):
        dropped = Dropout(0.3)(torch.ones(40, 8, 20, 20))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    torch.testing.assert_close(dropped[dropped != 0].unique(), torch.tensor([1 / 0.7]))


@pytest.mark.parametrize(("side", "size"), [(10, 5), (5, 5), (21, 5), (4, 2), (2, 2), (3, 7), (1, 2)])
def test_drop_block_zeroes_whole_squares(side, size):
    """The mask equals the union of squares that a plain loop draws around the same corners."""
    layer = full_ramp(0.3, size)
    maps = torch.ones(6, 3, side, side, dtype=torch.float64)
    with batch_of_tasks(2, KEYS[:2]):
        kept = layer(maps)
    fits = side - min(size, side) + 1
    gamma = 0.3 / min(size, side) ** 2 * side**2 / fits**2
    expected = torch.ones_like(maps)
    with batch_of_tasks(2, KEYS[:2]):
        corners = uniform_like(maps[..., :fits, :fits]) < gamma
    for image, channel, row, column in corners.nonzero().tolist():
        expected[image, channel, row : row + size, column : column + size] = 0
    assert 0 < corners.sum() < corners.numel() or side == size or fits == 1
    for part, mask in zip(kept.split(3), expected.split(3)):
        torch.testing.assert_close(part, mask * mask.numel() / mask.sum().clamp(min=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("side", "size"), [(10, 5), (5, 5), (4, 2), (2, 2)])
def test_drop_block_drops_about_its_rate(side, size):
    """A little below the rate, since squares overlap: 1 - (1 - gamma)**(corners that cover a place), averaged."""
    torch.manual_seed(0)
    rate, fits = 0.1, side - size + 1
    gamma = rate / size**2 * side**2 / fits**2
    covering = np.minimum.reduce(
        [np.arange(side) + 1, np.arange(side)[::-1] + 1, np.full(side, size), np.full(side, fits)]
    )
    expected = (1 - (1 - gamma) ** np.outer(covering, covering)).mean()
    dropped = (full_ramp(rate, size)(torch.ones(2000, 10, side, side)) == 0).float().mean().item()
    assert dropped == pytest.approx(expected, abs=0.004)
    assert 0.085 < dropped < 0.105


def test_a_task_that_lost_everything_is_zero_and_not_nan():
    layer = full_ramp(0.9, 2)
    torch.manual_seed(0)
    with batch_of_tasks(64):
        kept = layer(torch.ones(64, 1, 2, 2))
    assert (kept == 0).any()
    assert kept.isfinite().all()


def test_ramp_rises_linearly_and_counts_tasks():
    layer = DropBlock(0.1, size=5, ramp_tasks=32_000)
    assert layer.drop_probability() == 0
    for seen, expected in ((16_000, 0.05), (32_000, 0.1), (1_000_000, 0.1)):
        layer.training_tasks.fill_(seen)
        assert layer.drop_probability().item() == pytest.approx(expected)


def test_network_counts_training_tasks_and_saves_them():
    network = ResNet12(widths=(2, 2, 2, 2), image_size=16)
    images = torch.randn(12, 3, 16, 16)
    with batch_of_tasks(6):
        network(images)
    with batch_of_tasks(6, total=24):
        network(images)
    network(images)
    network.eval()(images)
    state = network.state_dict()
    counters = {name: value for name, value in state.items() if name.endswith("training_tasks")}
    assert [value.item() for value in counters.values()] == [31, 31]
    resumed = ResNet12(widths=(2, 2, 2, 2), image_size=16)
    resumed.load_state_dict(state)
    assert resumed.blocks[3].drop.drop_probability().item() == pytest.approx(0.1 * 31 / 32_000)


def random_network() -> ResNet12:
    torch.manual_seed(0)
    network = ResNet12(widths=(4, 4, 4, 4), image_size=32, drop_rate=0.3, ramp_tasks=1).double()
    for buffer in network.buffers():
        if buffer.dtype == torch.int64:
            buffer.fill_(1000)
    return network


def test_masks_belong_to_the_task_however_tasks_are_split():
    torch.manual_seed(1)
    images = torch.randn(12, 3, 32, 32, dtype=torch.float64)
    images[9:] = images[:3]
    with batch_of_tasks(4, KEYS):
        together = random_network()(images)
    for split in ([1, 3], [2, 2], [1, 1, 1, 1]):
        parts = []
        for part, keys in zip(images.split([3 * count for count in split]), np.split(KEYS, np.cumsum(split)[:-1])):
            torch.manual_seed(99)
            with batch_of_tasks(len(keys), keys):
                parts.append(random_network()(part))
        torch.testing.assert_close(torch.cat(parts), together, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(together[9:], together[:3])


def test_other_keys_layers_and_seeds_give_other_masks():
    ones = torch.ones(8, 4, 10, 10)
    layer = Dropout(0.5)
    with batch_of_tasks(4, KEYS):
        first, second = layer(ones), layer(ones)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:2], first[2:4])
    with batch_of_tasks(4, KEYS + np.uint64(1)):
        assert not torch.equal(layer(ones), first)
    assert not torch.equal(layer(ones), layer(ones))


def test_masks_do_not_touch_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with batch_of_tasks(4, KEYS):
        Dropout(0.5)(torch.ones(8, 4, 10, 10))
    assert torch.equal(torch.rand(3), expected)


def test_refuses_another_number_of_keys():
    with pytest.raises(ValueError, match="4 keys were given for 3 tasks"), batch_of_tasks(3, KEYS):
        pass


def test_learners_that_adapt_weights_count_a_task_once_and_drop_alike_for_any_number_at_once():
    """However many passes a task makes: through five inner steps here, and one for the query images."""
    task = torch.randn(4, 3, 1, 16, 16), torch.arange(3).expand(4, 3)
    episodes = Episodes(*task, *task, classes=task[1], keys=np.arange(4, dtype=np.uint64))
    found = []
    for tasks_at_once in (1, 4):
        torch.manual_seed(0)
        network = ResNet12(widths=(4, 4, 4, 4), drop_rate=0.3, in_channels=1, image_size=16)
        learner = MAML(network, ways=3, tasks_at_once=tasks_at_once)
        learner.accumulate_gradients(episodes)
        found.append([parameter.grad for parameter in learner.parameters()])
        counts = {int(layer.training_tasks) for layer in learner.modules() if isinstance(layer, DropBlock)}
        assert counts == {4}
    torch.testing.assert_close(*found)
