"""The views on TSA-MAML's groups: each number of their tables against a direct computation, and the pictures."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from tsa_toys import domains_data, toy_tsa_maml

from kshot.backbones import Conv4
from kshot.cli.tsa import VIEWS
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import ConfigError
from kshot.evaluation.protocol import evaluate
from kshot.experiments import solution_clusters
from kshot.experiments.domain_tasks import DomainTasks
from kshot.experiments.findings import Findings
from kshot.experiments.task_maps import neighbours_of_domain, two_dimensions
from kshot.intervals import mean_interval
from kshot.learners import ProtoNet

SMALL: dict[str, Any] = {"ways": 3, "shots": 2, "tasks": 20, "seed": 4}


def clustered(groups: int = 2) -> Any:
    """A learner whose groups lie around the estimated optima of a few tasks."""
    learner, split = toy_tsa_maml(groups=groups), domains_data().train
    raw = EpisodeSampler(split, TaskShape(3, 2, 0), seed=1).episodes(np.arange(groups))
    learner.start_groups(learner.task_vectors(prepare_images(raw, split.normalization)))
    return learner


def rows_of(findings: Findings) -> list[dict[str, str]]:
    assert findings.figure().axes, "the picture can be drawn"
    return list(csv.DictReader(io.StringIO(findings.csv())))


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
def test_steps_agree_with_an_evaluation_after_as_many_steps(statistics: Any) -> None:
    tsa_maml, split = clustered(), domains_data().test
    learners = {"maml": tsa_maml.pretraining_learner(), "tsa": tsa_maml}
    findings = VIEWS["steps"](learners, split, steps=2, queries=3, statistics=statistics, **SMALL)
    rows = {(row["run"], int(row["steps"])): row for row in rows_of(findings)}
    assert len(rows) == 6
    results = {}
    for (name, step), row in rows.items():
        learner = learners[name]
        learner.test_inner_steps = step
        results[name, step] = evaluate(learner, split, queries=3, statistics=statistics, **SMALL)
        assert float(row["accuracy"]) == pytest.approx(results[name, step].mean, abs=1e-6)
        assert float(row["accuracy_ci95"]) == pytest.approx(results[name, step].ci95, abs=1e-6)
        assert (row["statistics"], row["seed"], row["split"]) == (statistics, "4", "test")
    difference = results["tsa", 2].accuracies - results["maml", 2].accuracies
    assert float(rows["tsa", 2]["difference"]) == pytest.approx(difference.mean(), abs=1e-6)
    assert float(rows["tsa", 2]["difference_ci95"]) == pytest.approx(mean_interval(difference).ci95, abs=1e-6)
    assert (
        f"tsa less maml {100 * difference.mean():+.2f} ± {100 * mean_interval(difference).ci95:.2f} points"
        in findings.verdict
    )
    assert f"{statistics} statistics, seed 4" in findings.verdict


def test_the_loss_is_that_of_the_query_images() -> None:
    learner, split = clustered(), domains_data().test
    row = rows_of(VIEWS["steps"]({"tsa": learner}, split, steps=1, queries=3, **SMALL))[1]
    episodes = prepare_images(
        EpisodeSampler(split, TaskShape(3, 2, 3), seed=4).episodes(np.arange(20)), split.normalization
    )
    learner.test_inner_steps = 1
    scores = learner.eval().scores(episodes)
    losses = torch.nn.functional.cross_entropy(scores.mT, episodes.query_labels, reduction="none").mean(1)
    assert float(row["loss"]) == pytest.approx(float(losses.mean()), rel=1e-5)
    assert float(row["loss_ci95"]) == pytest.approx(mean_interval(losses.double().numpy()).ci95, rel=1e-5)


def test_tasks_of_a_domain_are_the_first_ones_of_that_domain() -> None:
    split = domains_data().test
    drawn = DomainTasks.of(split, ways=3, shots=1, tasks=30, seed=0)
    sampler, found = drawn.sampler, drawn.by_domain
    assert list(found) == ["bright", "dark"]
    every = sampler.rows(np.arange(200)).classes[:, 0]
    for domain, numbers in found.items():
        own = np.flatnonzero([split.domains[first] == domain for first in every])
        np.testing.assert_array_equal(numbers, own[:30])


def test_usage_counts_the_groups_that_tasks_are_assigned_to() -> None:
    learner, split = clustered(3), domains_data().test
    findings = VIEWS["usage"]({"tsa": learner}, split, **SMALL)
    rows = rows_of(findings)
    assert [(row["domain"], row["group"]) for row in rows] == [
        (d, str(g)) for d in ("bright", "dark") for g in range(3)
    ]
    drawn = DomainTasks.of(split, ways=3, shots=2, tasks=20, seed=4)
    sampler = drawn.sampler
    seen: dict[str, list[int]] = {}
    for domain, numbers in drawn.by_domain.items():
        episodes = prepare_images(sampler.episodes(numbers), split.normalization)
        seen[domain] = torch.cat(learner.eval().by_chunk(learner.assigned, episodes)).tolist()
        counts = Counter(seen[domain])
        for row in (row for row in rows if row["domain"] == domain):
            count = counts[int(row["group"])]
            assert float(row["frequency"]) == count / 20
            low, high = stats.binomtest(count, 20).proportion_ci(method="wilson")
            assert (float(row["low95"]), float(row["high95"])) == pytest.approx((low, high))
    assert len({row["frequency"] for row in rows}) > 2, "the groups are not all used alike"
    assert "20 tasks of each domain of toy/test, seed 4" in findings.verdict
    nmi = normalized_mutual_info_score(np.repeat(list(seen), 20), np.concatenate(list(seen.values())))
    assert [float(row["nmi"]) for row in rows] == pytest.approx([nmi] * 6)
    assert f"mutual information {nmi:.3f} (" in findings.verdict


def test_clusters_are_those_of_the_learners_own_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solution_clusters, "STEPS", (1, 3))
    split, few = domains_data().test, SMALL | {"tasks": 6}
    findings = VIEWS["clusters"]({"x": toy_tsa_maml()}, split, **few)
    rows = {(row["symmetrize"], row["shifts"], row["steps"], row["part"]): row for row in rows_of(findings)}
    assert len(rows) == 3 * 2 * 4 + 2 * 2
    drawn = DomainTasks.of(split, ways=3, shots=2, tasks=6, seed=4)
    sampler, numbers = drawn.sampler, drawn.numbers
    episodes = prepare_images(sampler.episodes(numbers), split.normalization)
    without: dict[str, Any] = {"cluster_norms": False, "cluster_head": False}
    seen = []
    for kind, shifts, steps, part, options in (
        ("shifts", 1, 3, "all", {}),
        ("shifts", 2, 1, "body", {"cluster_head": False}),
        ("shifts", 3, 1, "all without norms", {"cluster_norms": False}),
        ("shifts", 3, 3, "body without norms", without),
        ("shared-head", 1, 3, "body", {}),
    ):
        chosen = {"shifts": shifts} if kind == "shifts" else {}
        learner = toy_tsa_maml(symmetrize=kind, assignment_steps=steps, **chosen, **options).eval()
        vectors = torch.cat(learner.by_chunk(learner.task_vectors, episodes)).numpy()
        labels = KMeans(2, n_init=10, random_state=4).fit(vectors).labels_
        row = rows[kind, str(shifts), str(steps), part]
        seen.append(normalized_mutual_info_score(np.repeat(["bright", "dark"], 6), labels))
        assert float(row["nmi"]) == pytest.approx(seen[-1], abs=1e-6)
        assert int(row["passes"]) == (1 if steps == 1 else steps * shifts)
    assert f"x as published {seen[0]:.3f} (" in findings.verdict


def test_accuracy_by_groups_is_that_of_evaluations() -> None:
    split = domains_data().test
    learners = {"three": clustered(3), "two": clustered(2), "one": clustered().pretraining_learner()}
    findings = VIEWS["groups"](learners, split, queries=3, **SMALL)
    assert len(rows_of(VIEWS["groups"]({"one": learners["one"]}, split, queries=3, **SMALL))) == 1
    rows = rows_of(findings)
    assert [(row["run"], row["groups"]) for row in rows] == [("one", "1"), ("two", "2"), ("three", "3")]
    first = evaluate(learners["three"], split, queries=3, **SMALL)
    for row in rows:
        result = evaluate(learners[row["run"]], split, queries=3, **SMALL)
        assert (float(row["accuracy"]), float(row["accuracy_ci95"])) == pytest.approx((result.mean, result.ci95))
        assert f"m = {row['groups']} {100 * result.mean:.2f} ± {100 * result.ci95:.2f} %" in findings.verdict
        mean, ci95 = mean_interval(result.accuracies - first.accuracies)
        assert (float(row["difference"]), float(row["difference_ci95"])) == pytest.approx((mean, ci95), abs=1e-9)
        shown = f"{row['run']} {100 * mean:+.2f} ± {100 * ci95:.2f}"
        assert (shown in findings.verdict) == (row["run"] != "three"), "the first is what the others are compared with"


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_the_map_has_a_place_for_every_task_by_both_measures(method: Any) -> None:
    learner, split = clustered(), domains_data().test
    findings = VIEWS["map"]({"tsa": learner}, split, method=method, **SMALL)
    rows = rows_of(findings)
    assert Counter(row["domain"] for row in rows) == {"bright": 20, "dark": 20}
    again = VIEWS["map"]({"tsa": learner}, split, method=method, **SMALL)
    assert again.csv() == findings.csv(), "the seed makes the map"
    sampler = EpisodeSampler(split, TaskShape(3, 2, 0), seed=4, within_domain=True)
    numbers = np.asarray([int(row["task"]) for row in rows])
    episodes = prepare_images(sampler.episodes(numbers), split.normalization)
    symmetrised = toy_tsa_maml(symmetrize="shifts")
    symmetrised.load_state_dict(learner.state_dict())
    for kind, label, solver in (
        ("parameters", "parameters", learner),
        ("symmetrised", "parameters, symmetrised", symmetrised),
    ):
        vectors = torch.cat(solver.eval().by_chunk(solver.task_vectors, episodes)).numpy()
        near = neighbours_of_domain(vectors, np.asarray([row["domain"] for row in rows]))
        assert [row[f"{kind}_neighbour_of_domain"] for row in rows] == [str(int(each)) for each in near]
        share = f"{100 * near.mean():.2f} ± {100 * mean_interval(near.astype(np.float64)).ci95:.2f} %"
        assert f"by {label} {share}" in findings.verdict
    assert "48.7 % by chance" in findings.verdict, "19 of the 39 others"


def test_neighbours_and_projections_of_separate_clouds() -> None:
    generator = np.random.default_rng(0)
    domains = np.repeat(["a", "b"], 15)
    points = generator.normal(0, 1, (30, 9)) + 20 * (domains == "a")[:, None]
    assert neighbours_of_domain(points, domains).all()
    mixed = np.where(np.arange(30) % 2, "a", "b")
    assert neighbours_of_domain(points, mixed).mean() < 0.9
    for method in ("pca", "tsne"):
        plane = two_dimensions(points, method, seed=0)  # type: ignore[arg-type]
        assert plane.shape == (30, 2)
        assert neighbours_of_domain(plane, domains).all()


def test_learners_without_groups_are_refused() -> None:
    split = domains_data().test
    maml, protonet = toy_tsa_maml().pretraining_learner(), ProtoNet(Conv4(4, in_channels=1, image_size=16))
    refused = (("usage", maml), ("map", maml), ("steps", protonet), ("groups", protonet), ("clusters", protonet))
    for view, learner in refused:
        queries = {"queries": 3} if learner is protonet and view != "clusters" else {}
        with pytest.raises(ConfigError, match=f"x is a {type(learner).__name__}"):
            VIEWS[view]({"x": learner}, split, **SMALL, **queries)
    with pytest.raises(ConfigError, match="give runs of hsml, maml, mmaml, tsa-maml, unicorn-maml"):
        VIEWS["steps"]({"x": protonet}, split, **SMALL, queries=3)
    with pytest.raises(ConfigError, match="method is 'umap'; choose one of: tsne, pca"):
        VIEWS["map"]({"x": toy_tsa_maml()}, split, method="umap", **SMALL)
    with pytest.raises(ConfigError, match="tasks is 0, but must be positive"):
        VIEWS["usage"]({"x": toy_tsa_maml()}, split, **SMALL | {"tasks": 0})


TRAIN = shlex.split(
    "--data tiny --backbone.width 4 --ways 3 --shots 2 --queries 2 --meta-batch 2 --tasks-per-epoch 4 --max-epochs 1 "
    "--validation-tasks 4 --validation-queries 2 --schedule constant --progress false --learner.groups 2 "
    "--learner.assignment-steps 2 --solutions 10"
)
VIEW = ["--ways", "3", "--shots", "2", "--tasks", "4"]


def test_the_command_trains_and_draws_every_view(say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solution_clusters, "STEPS", (1, 2))
    code, out, _ = say("tsa", "train", *TRAIN)
    assert code == 0
    run = "runs/tsa-maml-tiny-conv4-seed0"
    assert f"kshot evaluate {run}" in out
    assert "training tasks of each group: 0: " in out
    config = yaml.safe_load(Path(run, "stages.yaml").read_text())
    assert config["stages"] == {
        "clustering": "kmeans",
        "pretrained": None,
        "pretraining_epochs": 1,
        "solutions": 10,
    }
    options = {
        "steps": ["--steps", 2, "--queries", 4],
        "usage": [],
        "groups": ["--queries", 4],
        "map": [],
        "clusters": [],
    }
    for name, more in options.items():
        runs = [run] if name in ("usage", "map") else [f"{run}/pretraining", run]
        code, out, err = say("tsa", name, *runs, *VIEW, *more)
        assert code == 0, err
        assert "seed 0" in out
        assert all(Path("tsa", f"{name}.{kind}").stat().st_size > 0 for kind in ("csv", "png", "json"))


def test_an_interrupted_command_goes_on(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kshot.tsa.train.cluster", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert say("tsa", "train", *TRAIN, "--run", "half")[0] == 130
    code, _, err = say("tsa", "usage", "half", *VIEW)
    assert code == 2
    assert "half is not trained yet, it has reached the task solutions; continue with" in err
    code, _, err = say("tsa", "train", *TRAIN, "--run", "half")
    assert code == 2
    assert "kshot tsa train --resume half" in err
    assert say("tsa", "train", "--resume", "half")[0] == 0
    assert say("tsa", "train", *TRAIN, "--run", "whole")[0] == 0
    assert Path("half/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()
    assert say("tsa", "train", *TRAIN, "--run", "again", "--pretrained", "whole/pretraining")[0] == 0
    assert Path("again/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()


def test_a_recipe_of_stages_is_trained_in_stages(say: Any) -> None:
    recipe = "tsa-maml-cifar-fs-5way-1shot"
    code, _, err = say("train", "--recipe", recipe)
    assert code == 2
    assert f"{recipe} is trained in stages: kshot tsa train --recipe {recipe}" in err
    assert say("tsa", "train", "--recipe", recipe, *TRAIN, "--patience", 1)[0] == 0
    run = Path(f"runs/{recipe}-seed0")
    config = yaml.safe_load((run / "stages.yaml").read_text())
    assert (config["stages"]["pretraining_epochs"], config["stages"]["solutions"]) == (60, 10)
    assert config["training"]["optimizer"] == "adam"


def test_the_command_says_what_there_is(say: Any) -> None:
    code, out, _ = say("tsa")
    assert code == 0
    assert all(f"\n  {name} " in out for name in ("train", *VIEWS))
    code, _, err = say("tsa", "plot")
    assert code == 2
    assert "kshot tsa has no command 'plot'; choose one of: train, steps, usage, groups, map, clusters" in err
    assert "kshot tsa train trains tsa-maml; for mtl run kshot train" in say("tsa", "train", "--learner", "mtl")[2]
    assert (
        "nowhere is no folder of a TSA-MAML training: it has no stages.yaml"
        in say("tsa", "train", "--resume", "nowhere")[2]
    )
