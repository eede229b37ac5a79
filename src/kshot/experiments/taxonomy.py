"""Do the learners minimise one objective of f, loss and R? (W21, Tables 1 and 2, and Appendix A for all layers)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from kshot import seeding
from kshot.backbones.conv4 import Conv4
from kshot.data.episodes import Episodes, TaskShape
from kshot.errors import ConfigError, check_positive
from kshot.experiments import taxonomy_all_layers as taxonomy_all_layers  # whose lines join the others
from kshot.experiments.findings import Experiment, Findings, Record, experiments
from kshot.experiments.taxonomy_lines import CLASSES, LINES, Line

_SIDE, _WIDTH = 16, 8  # side of the images, channels of the network
_AGREEMENT = 1e-9  # a relative difference that rounding and the solvers' tolerances explain


@experiments.register("taxonomy")
class Taxonomy(Experiment):
    """One function of f, loss and R gives the objective of every learner (W21, Tables 1 and 2, Appendix A).

    Value and gradient of each are compared in float64 with those of the learner itself, on tasks of noisy images and a
    Conv4 of random weights, or a small smooth network if all layers adapt. Nothing is averaged: rows are single
    comparisons, and the verdict names the largest difference over seeds.

    Parameters
    ----------
    ways
        Classes per task, at least 3.
    shots
        Support images per class.
    queries
        Query images per class.
    tasks
        Tasks per batch.
    seeds
        Each seed gives tasks and weights.
    """

    def __init__(
        self, *, ways: int = 5, shots: int = 3, queries: int = 4, tasks: int = 4, seeds: Sequence[int] = (0, 1, 2)
    ) -> None:
        check_positive(queries=queries, tasks=tasks)
        if not 3 <= ways <= CLASSES:
            raise ConfigError(
                f"ways is {ways}, but must be 3 to {CLASSES}: with 2 classes the logistic head has another R"
            )
        if not seeds:
            raise ConfigError("seeds is empty; give at least one value")
        self.shape, self.tasks, self.seeds = TaskShape(ways, shots, queries), tasks, seeds

    def run(self, *, progress: bool = False) -> Findings:
        """Compare all lines on the tasks of every seed."""
        rows = []
        with tqdm(total=len(LINES) * len(self.seeds), unit="comparison", disable=not progress) as bar:
            for each in LINES:
                for seed in self.seeds:
                    rows.append(_compared(each, seed, self.shape, self.tasks))
                    bar.update()
        protocol = f"{self.tasks} {self.shape} tasks, seeds {' '.join(map(str, self.seeds))}"
        return Findings(rows, _verdict(rows, protocol), lambda figure: _draw(figure, rows, protocol), (8.6, 5.0))


def _compared(each: Line, seed: int, shape: TaskShape, tasks: int) -> Record:
    """Value and relative differences; that of the gradient is nan if the learner has none."""
    episodes = _tasks(seed, shape, tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Conv4(_WIDTH, in_channels=1, image_size=_SIDE).double()
        result = each.compare(episodes, backbone)
    gradient_difference = float("nan")
    if result.by_learner.requires_grad:
        gradients = [_gradient(value, result.parameters) for value in (result.by_learner, result.by_formula)]
        gradient_difference = float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max())
    by_learner, by_formula = float(result.by_learner.detach()), float(result.by_formula.detach())
    return {
        "learner": each.learner,
        "scores": each.scores,
        "loss": each.loss,
        "regularizer": each.regularizer,
        "seed": seed,
        "objective": by_learner,
        "by_formula": by_formula,
        "difference": abs(by_learner - by_formula) / abs(by_learner),
        "gradient_difference": gradient_difference,
    }


def _gradient(value: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """All derivatives in one vector."""
    parts = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def _tasks(seed: int, shape: TaskShape, tasks: int) -> Episodes:
    """Tasks of noisy images with one pattern per class, float64."""
    generator = torch.Generator().manual_seed(int(seeding.key(seed, "taxonomy")) >> 1)
    classes = torch.rand(tasks, CLASSES, generator=generator).argsort(1)[:, : shape.ways]
    patterns = torch.randn(CLASSES, 1, _SIDE, _SIDE, generator=generator, dtype=torch.float64)
    images, labels = [], []
    for count in (shape.shots, shape.queries):
        labels.append(torch.arange(shape.ways).repeat_interleave(count).expand(tasks, -1))
        clean = patterns[classes].repeat_interleave(count, 1)
        images.append(clean + 2 * torch.randn(clean.shape, generator=generator, dtype=torch.float64))
    keys = seeding.bits(seeding.key(seed, "taxonomy"), np.arange(tasks))
    return Episodes(images[0], labels[0], images[1], labels[1], classes, keys)


def _largest(rows: Sequence[Record], learner: str) -> tuple[float, float]:
    """Differences of value and gradient, the largest over seeds."""
    of_learner = [row for row in rows if row["learner"] == learner]
    value, gradient = ([float(row[name]) for row in of_learner] for name in ("difference", "gradient_difference"))
    return max(value), max(gradient)


def _verdict(rows: Sequence[Record], protocol: str) -> str:
    learners = list(dict.fromkeys(str(row["learner"]) for row in rows))
    largest = {learner: _largest(rows, learner) for learner in learners}
    different = [learner for learner, pair in largest.items() if not pair[0] <= _AGREEMENT or pair[1] > _AGREEMENT]
    summary = f"all {len(learners)} agree" if not different else f"{', '.join(different)} DIFFER"
    texts = [
        f"{learner} {value:.0e}" + (" (no gradient)" if np.isnan(gradient) else f" ({gradient:.0e})")
        for learner, (value, gradient) in largest.items()
    ]
    return (
        f"One function of f, loss and R against the learners' own objectives ({protocol}): {summary}; largest relative "
        f"difference of the value, and of the gradient: {', '.join(texts)}."
    )


def _draw(figure: Figure, rows: Sequence[Record], protocol: str) -> None:
    """One line per learner, with its choices in words, and on a logarithmic axis how far it is from the formula."""
    axes = figure.subplots()
    lines = {
        str(row["learner"]): f"{row['learner']}\nf = {row['scores']}; {row['loss']}; R: {row['regularizer']}"
        for row in rows
    }
    places = range(len(lines))
    values, gradients = zip(*(_largest(rows, learner) for learner in lines))
    smallest = np.finfo(np.float64).eps / 100  # the place of differences of exactly zero
    axes.plot(np.maximum(values, smallest), places, "o", color="#0072B2", label="value")
    axes.plot(np.maximum(gradients, smallest), places, "s", mfc="none", color="#D55E00", label="gradient")
    axes.axvline(np.finfo(np.float64).eps, color="#666666", lw=0.9, ls=":", label="float64 epsilon")
    axes.set_yticks(places, list(lines.values()), fontsize=8)
    axes.invert_yaxis()
    right = max(1e-8, 10 * np.nanmax([*values, *gradients]))
    axes.set(xscale="log", xlim=(smallest / 2, right))
    axes.set_xlabel("relative difference, the largest over seeds (exactly 0: at the left edge)")
    axes.set_title(f"Objectives, formula against learner: {protocol}", loc="right", fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e4e4", lw=0.7)
    axes.legend(frameon=False, fontsize=8)
