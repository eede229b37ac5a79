"""The stages of TSA-MAML: what they leave, how they go on after a kill, and what they refuse."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from tsa_toys import TRAINING, domains_data, interrupt_after, toy_tsa_maml

from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import CheckpointError, ConfigError, DivergenceError
from kshot.learners import MAML, ProtoNet
from kshot.runs.run import Run
from kshot.training import TrainingInterrupted, TrainingOptions, train
from kshot.tsa.solutions import SolutionFile
from kshot.tsa.stages import Stages
from kshot.tsa.train import GroupTraining, train_tsa_maml

SOLUTIONS = 20  # one block of sixteen, and a part of a second one


def run_stages(run: Path, resume: bool = False, training: dict[str, Any] | None = None, **stages: Any) -> GroupTraining:
    options = Stages(**{"solutions": SOLUTIONS} | stages)
    chosen = TrainingOptions.of(TRAINING | (training or {}))
    return train_tsa_maml(toy_tsa_maml(), domains_data(), run=run, stages=options, training=chosen, resume=resume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tsa") / "whole"
    run_stages(run)
    return run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MAML of the toys' architecture, trained for a moment."""
    run = tmp_path_factory.mktemp("maml") / "run"
    train(toy_tsa_maml().pretraining_learner(), domains_data(), run=run, **TRAINING | {"max_epochs": 1})
    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "best.pt", weights_only=True)["learner"]


def test_the_stages_leave_a_run_with_everything_that_led_to_it(finished: Path) -> None:
    learner = Run(finished).learner
    maml = Run(finished / "pretraining").learner
    assert isinstance(maml, MAML)
    torch.testing.assert_close(dict(learner.network.state_dict()), dict(maml.network.state_dict()), rtol=0, atol=0)
    solutions = np.load(finished / "solutions" / "solutions.npy", mmap_mode="r")
    assert solutions.shape == (SOLUTIONS, learner.vector_size)
    split = domains_data().train
    raw = EpisodeSampler(split, TaskShape(3, 1, 2), seed=0).episodes(np.arange(SOLUTIONS))
    episodes = prepare_images(raw, split.normalization)
    vectors = torch.cat(learner.by_chunk(learner.task_vectors, episodes)).numpy()
    np.testing.assert_allclose(solutions, vectors, rtol=1e-3, atol=1e-6)
    centroids = KMeans(2, n_init=3, random_state=0).fit(vectors).cluster_centers_
    np.testing.assert_allclose(learner.centroids.detach().numpy(), centroids, rtol=1e-3, atol=1e-6)
    rows = list(csv.DictReader((finished / "groups.csv").open()))
    assert sum(int(row["solutions"]) for row in rows) == SOLUTIONS
    assert sum(int(row["tasks"]) for row in rows) in (6, 12), "as many as until the best epoch"
    assert [int(row["tasks"]) for row in rows] == learner.usage.tolist()
    assert learner.group_vectors().sub(learner.centroids).abs().amax(1).gt(0).any(), "the groups have moved on"


def test_a_finished_training_is_not_begun_again(finished: Path) -> None:
    before = weights_of(finished)
    with pytest.raises(ConfigError, match="has reached the training of the groups; continue with resume=True"):
        run_stages(finished)
    run_stages(finished, resume=True)
    torch.testing.assert_close(weights_of(finished), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("place", "name", "calls", "message"),
    [
        (MAML, "accumulate_gradients", 2, "the pretraining: stopped in epoch 1 after step 2; continue with"),
        (SolutionFile, "append", 1, "the task solutions: stopped after 16 of 20 task solutions; continue with"),
        (MAML, "accumulate_gradients", 8, "the training of the groups: stopped in epoch 1 after step 2"),
    ],
)
def test_an_interrupted_stage_goes_on_where_it_stopped(
    place: Any, name: str, calls: int, message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, place, name, calls)
        with pytest.raises(TrainingInterrupted, match=message):
            run_stages(tmp_path / "run")
    solved: list[int] = []
    append = SolutionFile.append
    monkeypatch.setattr(SolutionFile, "append", lambda file, rows: (solved.append(len(rows)), append(file, rows)))
    run_stages(tmp_path / "run", resume=True)
    assert sum(solved) == {"the pretraining": 20, "the task solutions": 4}.get(message.partition(":")[0], 0)
    torch.testing.assert_close(weights_of(tmp_path / "run"), weights_of(finished), rtol=0, atol=0)


def test_interrupted_symmetrised_solutions_and_offsets_go_on_to_the_byte(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"symmetrize": "shifts", "shifts": 2, "sharing": "offset", "offset_decay": 0.1}

    def run(folder: str, resume: bool = False) -> None:
        stages, training = Stages(pretrained, solutions=SOLUTIONS), TrainingOptions.of(TRAINING)
        learner = toy_tsa_maml(**options)
        train_tsa_maml(learner, domains_data(), run=tmp_path / folder, stages=stages, training=training, resume=resume)

    run("whole")
    for place, name, calls in ((SolutionFile, "append", 1), (MAML, "accumulate_gradients", 4)):
        with monkeypatch.context() as patch:
            interrupt_after(patch, place, name, calls)
            with pytest.raises(TrainingInterrupted):
                run("half", resume=name != "append")
    run("half", resume=True)
    files = ["solutions/solutions.npy", "metrics.csv", "groups.csv"]
    pairs = [[(tmp_path / folder / file).read_bytes() for folder in ("half", "whole")] for file in files]
    assert all(half == whole for half, whole in pairs)
    torch.testing.assert_close(weights_of(tmp_path / "half"), weights_of(tmp_path / "whole"), rtol=0, atol=0)


def test_metrics_say_after_every_epoch_how_groups_and_domains_agree(finished: Path, tmp_path: Path) -> None:
    assert "group_nmi" not in (finished / "metrics.csv").read_text(), "its tasks have classes of several domains"
    run = tmp_path / "run"
    run_stages(run, training={"within_domain": True, "validation_tasks": 12})
    *_, row = csv.DictReader((run / "metrics.csv").open())
    assert "group_nmi" not in (run / "pretraining" / "metrics.csv").read_text(), "MAML has no groups"
    learner, split = toy_tsa_maml().eval(), domains_data().val
    learner.load_state_dict(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["learner"])
    sampler = EpisodeSampler(split, TaskShape(3, 1, 2), seed=0, within_domain=True)
    episodes = prepare_images(sampler.episodes(np.arange(12)), split.normalization)
    groups = torch.cat(learner.by_chunk(learner.assigned, episodes)).numpy()
    domains = [split.domains[first] for first in episodes.classes[:, 0]]
    assert len(set(groups)) == 2
    assert float(row["group_nmi"]) == pytest.approx(normalized_mutual_info_score(domains, groups), abs=1e-9)
    assert float(row["group_ari"]) == pytest.approx(adjusted_rand_score(domains, groups), abs=1e-9)


def test_a_kill_during_clustering_costs_the_clustering_alone(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kshot.tsa.train.cluster", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stages(tmp_path / "run")
        patch.setattr(SolutionFile, "append", lambda *_: pytest.fail("the solutions were complete"))
    with pytest.raises(ConfigError, match="has reached the task solutions; continue with resume=True"):
        run_stages(tmp_path / "run")
    run_stages(tmp_path / "run", resume=True)
    torch.testing.assert_close(weights_of(tmp_path / "run"), weights_of(finished), rtol=0, atol=0)


def test_a_pretrained_run_is_taken_as_it_is(pretrained: Path, tmp_path: Path) -> None:
    run_stages(tmp_path / "run", pretrained=pretrained)
    maml, taken = weights_of(pretrained), weights_of(tmp_path / "run")
    assert all(torch.equal(taken[name], maml[name]) for name in maml if name.startswith("network."))
    assert not (tmp_path / "run" / "pretraining").exists()


def test_a_pretrained_run_of_another_architecture_is_refused(pretrained: Path, tmp_path: Path) -> None:
    stages = Stages(pretrained, solutions=SOLUTIONS)
    with pytest.raises(
        CheckpointError, match=r"another architecture: backbone\.width is 4 there and 6 here; train with"
    ):
        train_tsa_maml(
            toy_tsa_maml(width=6),
            domains_data(),
            run=tmp_path / "wide",
            stages=stages,
            training=TrainingOptions(**TRAINING),
        )
    training = TrainingOptions(**TRAINING | {"ways": 4})
    with pytest.raises(CheckpointError, match=r"learner\.ways is 3 there and 4 here"):
        train_tsa_maml(toy_tsa_maml(ways=4), domains_data(), run=tmp_path / "ways", stages=stages, training=training)
    other = ProtoNet(Conv4(4, in_channels=1, image_size=16))
    train(other, domains_data(), run=tmp_path / "protonet", **TRAINING | {"max_epochs": 1})
    with pytest.raises(CheckpointError, match="trained by protonet, which learns no initialisation"):
        run_stages(tmp_path / "run", pretrained=tmp_path / "protonet")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        run_stages(tmp_path / "none", pretrained=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("stages", "training", "message"),
    [
        ({"solutions": 1}, {}, "groups is 2, but there are only 1 task solutions"),
        ({"clustering": "k-medoids"}, {}, "clustering is 'k-medoids'; choose one of: kmeans, minibatch"),
        ({"pretraining_epochs": 0}, {}, "pretraining_epochs is 0"),
        ({}, {"epochs": 3}, "training has no option 'epochs'"),
    ],
)
def test_options_without_sense_are_refused_before_any_work(
    stages: dict[str, Any], training: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_stages(tmp_path / "run", training=training, **stages)
    assert not (tmp_path / "run").exists()


def test_options_that_are_refused_before_any_work_leave_the_folder_free(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no schedule 'never'"):
        run_stages(tmp_path / "run", training={"schedule": "never"})
    run_stages(tmp_path / "run", pretrained=pretrained)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="in one process"):
        run_stages(tmp_path / "run")


def interrupted_in_solutions(run: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose stages ended after the first chunk of task solutions."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, SolutionFile, "append", 1)
        with pytest.raises(TrainingInterrupted):
            run_stages(run, pretrained=pretrained)
    return run


def test_other_options_cannot_be_resumed(pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted_in_solutions(tmp_path / "run", pretrained, monkeypatch)
    with pytest.raises(ConfigError, match=r"stages\.solutions was 20 and is 30"):
        run_stages(run, resume=True, pretrained=pretrained, solutions=30)
    with pytest.raises(CheckpointError, match=r"from something else \(it differs in shots\); delete the folder"):
        run_stages(run, resume=True, pretrained=pretrained, training={"shots": 2})


def test_the_folder_of_another_run_is_left_alone(pretrained: Path) -> None:
    with pytest.raises(ConfigError, match="holds a trained run of another kind"):
        run_stages(pretrained)


def test_damaged_solutions_are_told(pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted_in_solutions(tmp_path / "run", pretrained, monkeypatch)
    file, progress = run / "solutions" / "solutions.npy", run / "solutions" / "progress.json"
    content, record = file.read_bytes(), progress.read_text()
    file.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"are fewer than the 16 that were written\); delete the folder"):
        run_stages(run, resume=True, pretrained=pretrained)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="are not those that were written; delete the folder"):
        run_stages(run, resume=True, pretrained=pretrained)
    file.write_bytes(content)
    for damaged in (record[:20], "[]", record.replace("16", "-16", 1), record.replace("16", '"16"', 1)):
        progress.write_text(damaged)
        with pytest.raises(CheckpointError, match="cannot be read"):
            run_stages(run, resume=True, pretrained=pretrained)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("solutions: 20", "solutions: 21", "its checksum differs"),
        ("solutions: 20", "solutions: -1", "stages.solutions is -1"),
        ("stages:", "steps:", "it lacks stages"),
        ("clustering: kmeans", "clustering: k", "stages.clustering is"),
        ("pretrained:", "untrained:", "the options in stages are not pretrained"),
    ],
)
def test_a_damaged_stages_file_is_told(finished: Path, tmp_path: Path, old: str, new: str, expected: str) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    changed = (run / "stages.yaml").read_text().replace(old, new)
    if "checksum" not in expected:
        changed = changed[: changed.index("# checksum")]
    (run / "stages.yaml").write_text(changed)
    with pytest.raises(CheckpointError, match=expected):
        run_stages(run, resume=True)


def test_a_task_that_diverges_is_named_by_its_number(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Any] = []

    def with_nan(*arguments: Any, **options: Any) -> Any:
        batches.append(prepare_images(*arguments, **options))
        if len(batches) == 2:
            batches[-1].support[2] = torch.nan
        return batches[-1]

    monkeypatch.setattr("kshot.evaluation.task_loop.prepare_images", with_nan)
    with pytest.raises(DivergenceError, match="task 18: the inner loop diverged"):
        run_stages(tmp_path / "run", pretrained=pretrained)


def test_groups_that_lose_their_tasks_are_reported(tmp_path: Path, pretrained: Path) -> None:
    learner = toy_tsa_maml(assignment="current")
    start_groups = learner.start_groups

    def far_away(centroids: torch.Tensor, *, axes: torch.Tensor | None = None) -> None:
        start_groups(centroids + torch.tensor([[0.0], [100.0]]))

    learner.start_groups = far_away  # type: ignore[method-assign]
    stages = Stages(pretrained, solutions=SOLUTIONS)
    options = TrainingOptions(**TRAINING | {"patience": 0})
    training = train_tsa_maml(learner, domains_data(), run=tmp_path, stages=stages, training=options)
    assert [group.lost for group in training.groups] == [False, True]
    assert training.groups[1].unused_for >= 6
    assert "groups with no task for an epoch or longer, whose weights have stopped learning: 1" in training.report()
    assert "0: 100.0 %" in training.report()
