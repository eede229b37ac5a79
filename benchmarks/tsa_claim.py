"""TSA-MAML's claim on tasks of several domains: every form of it against MAML, after the same theta* and as many tasks.

    python benchmarks/tsa_claim.py --data groups --folder runs/tsa-claim --seed 0

trains theta* (first-order MAML), then each arm from it on the same tasks, measures all arms on the same test tasks and
writes ``results-seed0.csv``: accuracy of each arm and domain, and paired differences to MAML and to the control of one
group. Everything is resumable: the same command goes on where it was stopped, and a larger --epochs trains longer.

Arms: maml; published (three groups, Algorithm 1); symmetrized (mean over label shifts, nearest
initial group along 20 principal axes); offset
(symmetrized, with a common part and an offset per group); offset-one-group (its control) and offset-5-groups, -9- and
-15-groups; offset-current (nearest current group); oracle and oracle-offset (the true domains in the place of groups,
all starting at theta*); unicorn-maml (from random weights, on the tasks of theta* and then on those of the arms).
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

import kshot
from kshot.data.dataset import Dataset
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.evaluation.protocol import evaluate
from kshot.intervals import mean_interval
from kshot.learners import MAML, TSAMAML, UnicornMAML, learners
from kshot.runs import checkpoints
from kshot.training import TrainingOptions, train
from kshot.tsa import Stages, train_tsa_maml

SHAPE = {"ways": 5, "shots": 5}
STEPS = {"inner_rate": 0.05, "inner_steps": 3, "test_inner_steps": 5, "first_order": True}
SYMMETRIZED = {"symmetrize": "shifts", "assignment": "initial", "assignment_steps": 1, "cluster_components": 20}
SYMMETRIZED |= {"cluster_norms": False}
ARMS: dict[str, dict[str, Any]] = {
    "maml": {},
    "offset": {"groups": 3, "sharing": "offset", **SYMMETRIZED},
    "offset-one-group": {"groups": 1, "sharing": "offset", **SYMMETRIZED},
    "oracle-offset": {"groups": 3, "sharing": "offset"},
    "symmetrized": {"groups": 3, **SYMMETRIZED},
    "published": {"groups": 3, "assignment": "current", "cluster_norms": False},
    "oracle": {"groups": 3},
    "offset-current": {"groups": 3, "sharing": "offset", **SYMMETRIZED, "assignment": "current"},
    "unicorn-maml": {},
}
ARMS |= {f"offset-{m}-groups": {"groups": m, "sharing": "offset", **SYMMETRIZED} for m in (5, 9, 15)}
SOLUTIONS = 600


@learners.register("oracle-of-domains")
class OracleOfDomains(TSAMAML):
    """TSA-MAML whose groups are the domains; `domains` holds the group of each class for training and for the rest."""

    domains: dict[bool, Tensor]

    def assigned(self, episodes: Episodes) -> Tensor:
        """The domain (B,) of each task."""
        return self.domains[self.training][episodes.classes[:, 0]]


def domains_of(split: kshot.Split) -> Tensor:
    """The number of each class's domain, (classes,)."""
    return torch.from_numpy(np.unique(split.domains, return_inverse=True)[1])


def backbone(data: Dataset) -> kshot.Conv4:
    channels, side, _ = data.train.image_shape
    return kshot.Conv4(32, in_channels=channels, image_size=side, pooling="flatten")


def training(given: argparse.Namespace, *, seed: int, epochs: int, tasks: int) -> TrainingOptions:
    return TrainingOptions(
        **SHAPE, queries=10, validation_queries=15, meta_batch=4, tasks_per_epoch=tasks, max_epochs=epochs,
        validation_tasks=given.validation_tasks, learning_rate=1e-3, clip_gradient_value=10.0, schedule="constant",
        patience=0, augment=False, seed=seed, progress=False,
    )  # fmt: skip


def theta_star(data: Dataset, given: argparse.Namespace) -> Path:
    """The run of theta*."""
    if given.theta is not None:
        return given.theta
    torch.manual_seed(given.seed)
    return pretrained(MAML(backbone(data), ways=5, **STEPS), data, "theta", given)


def pretrained(learner: MAML, data: Dataset, name: str, given: argparse.Namespace) -> Path:
    """The run of a learner on the tasks of theta*."""
    folder = given.folder / f"seed{given.seed}" / name
    options = training(given, seed=given.seed, epochs=given.theta_epochs, tasks=600)
    train(learner, data, run=folder, resume=folder.exists(), **options.plain())
    return folder


def arm_learner(name: str, data: Dataset, theta: Path, given: argparse.Namespace) -> MAML:
    """The trained learner of an arm, with the weights of its last epoch."""
    folder, options = given.folder / f"seed{given.seed}" / name, ARMS[name]
    if name == "published":
        options = options | {"assignment_steps": given.published_steps}
    chosen = training(given, seed=1000 + given.seed, epochs=given.epochs, tasks=given.tasks_per_epoch)
    if name == "unicorn-maml":
        torch.manual_seed(given.seed)
        theta = pretrained(UnicornMAML(backbone(data), **STEPS), data, "unicorn-theta", given)
    weights = checkpoints.load(kshot.Run(theta).best)["learner"]
    torch.manual_seed(given.seed)
    kinds = {"maml": MAML, "unicorn-maml": UnicornMAML}
    kind = kinds.get(name, OracleOfDomains if name.startswith("oracle") else TSAMAML)
    learner = kind(backbone(data), **STEPS, **options)
    if isinstance(learner, OracleOfDomains):
        learner.domains = {True: domains_of(data.train), False: domains_of(data.val)}
    if kind is TSAMAML:
        stages = Stages(pretrained=theta, solutions=SOLUTIONS)
        resume = (folder / "stages.yaml").exists()
        train_tsa_maml(learner, data, run=folder, stages=stages, training=chosen, resume=resume)
    else:
        learner.load_pretrained(weights) if isinstance(learner, TSAMAML) else learner.load_state_dict(weights)
        train(learner, data, run=folder, resume=folder.exists(), **chosen.plain())
    # of the last epoch, not of the best: every arm has learnt from as many tasks
    learner.load_state_dict(checkpoints.load(kshot.Run(folder).last)["learner"])
    return learner.eval()


def measure(learner: MAML, data: Dataset, given: argparse.Namespace) -> np.ndarray:
    """The accuracies of the test tasks, (tasks,)."""
    if isinstance(learner, OracleOfDomains):
        learner.domains = {True: learner.domains[True], False: domains_of(data.test)}
    return evaluate(learner, data.test, **SHAPE, queries=15, tasks=given.tasks, seed=0).accuracies


def found_groups(learner: MAML, data: Dataset, given: argparse.Namespace) -> dict[str, float]:
    """Agreement of groups and domains on the test tasks, and what the other rule of assignment would make of it.

    Empty without groups that are found.
    """
    from kshot.evaluation.agreement import group_agreement

    if not isinstance(learner, TSAMAML) or learner.groups == 1 or isinstance(learner, OracleOfDomains):
        return {}
    rule, numbers = learner.assignment, {}
    for each, suffix in ((rule, ""), ("initial" if rule == "current" else "current", "_other_rule")):
        learner.assignment = each
        agreed = group_agreement(learner, data.test, TaskShape(5, 5, 15), tasks=min(150, given.tasks), seed=0)
        if agreed is not None:
            numbers |= {f"nmi{suffix}": agreed.nmi, f"ari{suffix}": agreed.ari}
    learner.assignment = rule
    return numbers


def test_domains(data: Dataset, tasks: int) -> np.ndarray:
    """The domain (tasks,) of each test task; "all" for each if a task may have classes of several."""
    domains = EpisodeSampler(data.test, TaskShape(5, 5, 15), seed=0).domains(np.arange(tasks))
    return np.full(tasks, "all") if domains is None else domains


def rows_of(results: dict[str, np.ndarray], agreed: dict[str, Any], data: Dataset, given: argparse.Namespace) -> list:
    """Accuracy of each arm and domain, and of the mean over domains, with paired differences; in percent."""
    domains = test_domains(data, given.tasks)
    rows = []
    for name, domain in itertools.product(results, places(domains)):
        row: dict[str, Any] = {"seed": given.seed, "arm": name, "domain": domain}
        row |= {"tasks_of_theta": 600 * given.theta_epochs, "tasks": given.epochs * given.tasks_per_epoch}
        pairs = {"accuracy": results[name]}
        pairs |= {
            f"minus_{other}": results[name] - results[other]
            for other in ("maml", "offset-one-group")
            if other in results
        }
        for column, values in pairs.items():
            mean, half = over_domains(100 * values, domains, domain)
            row |= {column: round(mean, 4), f"{column}_ci95": round(half, 4)}
        chosen = len(domains) if domain == "mean" else int((domains == domain).sum())
        rows.append(row | {"test_tasks": chosen, "nmi": "", "ari": ""} | agreed.get(name, {}))
    return rows


def places(domains: np.ndarray) -> list[str]:
    """What there are rows of: each domain, if there are several, and the mean over domains."""
    names = sorted(set(domains))
    return [*names, "mean"] if len(names) > 1 else ["mean"]


def over_domains(values: np.ndarray, domains: np.ndarray, domain: str) -> tuple[float, float]:
    """Mean and half-width of the 95% interval over tasks of a domain, or of the mean of the domains' means."""
    if domain != "mean":
        return tuple(mean_interval(values[domains == domain]))
    each = [mean_interval(values[domains == name]) for name in sorted(set(domains))]
    return float(np.mean([one.mean for one in each])), float(np.sqrt(np.sum([one.ci95**2 for one in each])) / len(each))


def summary(data: Dataset, given: argparse.Namespace) -> None:
    """Write a table and a picture of what the seeds of a folder have in common."""
    measured: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    agreed: dict[tuple[str, int], list[float]] = {}
    for path in sorted(given.folder.glob(f"seed*/*/test-*-{given.tasks}.npz")):
        epochs, each = (int(number) for number in path.stem.split("-")[1].split("x"))
        place, seed = (path.parent.name, epochs * each), int(path.parent.parent.name.removeprefix("seed"))
        content = np.load(path)
        measured.setdefault(place, {})[seed] = 100 * content["accuracies"]
        if "nmi" in content:
            agreed.setdefault(place, []).append(float(content["nmi"]))
    domains = test_domains(data, given.tasks)
    rows = []
    for (arm, tasks), of_seed in measured.items():
        for other, domain in itertools.product(("", "maml", "offset-one-group"), places(domains)):
            base = measured.get((other, tasks), {})
            seeds = sorted(of_seed.keys() & base.keys()) if other else sorted(of_seed)
            if not seeds or other == arm:
                continue
            each = np.stack([of_seed[seed] - (base[seed] if other else 0.0) for seed in seeds])
            mean, over_tasks = over_domains(each.mean(0), domains, domain)
            of_seeds = [over_domains(values, domains, domain)[0] for values in each]
            over_seeds = mean_interval(np.asarray(of_seeds)).ci95 if len(seeds) > 1 else float("nan")
            row: dict[str, Any] = {"arm": arm, "tasks": tasks, "minus": other, "domain": domain}
            row |= {"mean": round(mean, 4), "ci95_over_tasks": round(over_tasks, 4)}
            row |= {"ci95_over_seeds": round(over_seeds, 4), "seeds": " ".join(map(str, seeds))}
            row |= {"of_seeds": " ".join(f"{value:.4f}" for value in of_seeds), "test_tasks": given.tasks}
            rows.append(row | {"nmi": " ".join(f"{value:.4f}" for value in agreed.get((arm, tasks), []))})
    with given.summary.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, given.summary.with_suffix(".png"))
    print(tabulate([row for row in rows if row["domain"] == "mean"], headers="keys"))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The gain of each arm over MAML, for the mean of the domains and for each; a panel per number of tasks."""
    gains = [row for row in rows if row["minus"] == "maml"]
    domains = sorted({row["domain"] for row in gains}, key=lambda name: (name != "mean", name))
    lengths = sorted({row["tasks"] for row in gains})
    figure, panels = plt.subplots(1, len(lengths), figsize=(1.5 + 5.5 * len(lengths), 3.4), sharey=True, squeeze=False)
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in gains)]
    if len(domains) == 1:
        arms.sort(key=lambda arm: ARMS[arm].get("groups", 0))
    for axes, tasks in zip(panels[0], lengths):
        axes.axhline(0, color="#999999", lw=0.8)
        for number, arm in enumerate(arms):
            of_arm = {row["domain"]: row for row in gains if (row["arm"], row["tasks"]) == (arm, tasks)}
            shown = [of_arm[domain] for domain in domains if domain in of_arm]
            if not shown:
                continue
            places = np.arange(len(domains)) + 0.7 * ((number + 0.5) / len(arms) - 0.5)
            means, halves = ([row[key] for row in shown] for key in ("mean", "ci95_over_tasks"))
            axes.errorbar(places, means, halves, fmt="o", ms=5, lw=1.4, capsize=3, color=f"C{number}", label=arm)
            for place, row in zip(places, shown):
                seeds = [float(value) for value in row["of_seeds"].split()]
                axes.plot([place] * len(seeds), seeds, "_", ms=7, color=f"C{number}", alpha=0.6)
        axes.set(title=f"{tasks:,} training tasks after theta*", xticks=range(len(domains)))
        axes.set_xticklabels(["mean of the domains" if len(domains) > 1 else "all tasks", *domains[1:]])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("points above MAML")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.text(
        0.5, 0.005, "Bars are 95% intervals over test tasks; dashes are single trainings.", fontsize=8, ha="center"
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="groups")
    parser.add_argument("--folder", type=Path, default=Path("runs/tsa-claim"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--theta", type=Path, help="a run of first-order MAML that is trained already")
    parser.add_argument("--published-steps", type=int, default=20, help="of the published assignment (Z21: 20)")
    parser.add_argument("--theta-epochs", type=int, default=5, help="of 600 tasks each")
    parser.add_argument("--epochs", type=int, default=2, help="of each arm")
    parser.add_argument("--tasks-per-epoch", type=int, default=400)
    parser.add_argument("--validation-tasks", type=int, default=24)
    parser.add_argument("--tasks", type=int, default=450, help="of the test")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--summary", type=Path, help="write a table and a picture of what was measured; train nothing")
    given = parser.parse_args()
    data = kshot.load(given.data)
    if given.summary is not None:
        summary(data, given)
        return
    theta = theta_star(data, given)
    results: dict[str, np.ndarray] = {}
    agreed: dict[str, Any] = {}
    for name in given.arms:
        learner = arm_learner(name, data, theta, given)
        saved = (
            given.folder / f"seed{given.seed}" / name / f"test-{given.epochs}x{given.tasks_per_epoch}-{given.tasks}.npz"
        )
        if not saved.exists():
            np.savez(saved, accuracies=measure(learner, data, given), **found_groups(learner, data, given))
        content = np.load(saved)
        results[name] = content["accuracies"]
        agreed[name] = {key: round(float(content[key]), 4) for key in content if key != "accuracies"}
        rows = rows_of(results, agreed, data, given)
        with (given.folder / f"results-seed{given.seed}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        print(name, *(row for row in rows if row["arm"] == name and row["domain"] == "mean"), flush=True)


if __name__ == "__main__":
    main()
