"""Experiment: the last-layer learners of W21's Tables 1 and 2 through one function, beside the learners themselves.

It looks up to `kshot.learners`, alone in this room. For a new learner, write one more function with `@line`: it builds
the learner, and says which f, loss and R its objective consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from kshot import seeding
from kshot.backbones.conv4 import Conv4
from kshot.data.episodes import Episodes, TaskShape
from kshot.errors import ConfigError, check_positive
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.learners import ANIL, MAML, R2D2, MetaOptNet, MultiTask, ProtoNet
from kshot.solvers import logistic_regression, ridge
from kshot.theory import last_layer as formula

_CLASSES, _SIDE, _WIDTH = 20, 16, 8  # classes, side of the images, channels of the network
_AGREEMENT = 1e-9  # a relative difference that rounding and the solvers' tolerances explain


@dataclass(frozen=True)
class Comparison:
    """An objective as the learner computes it and by the formula: scalars, and what to differentiate them in."""

    own: Tensor
    by_formula: Tensor
    parameters: Sequence[nn.Parameter]


@dataclass(frozen=True)
class Line:
    """A line of the tables: a learner, and in words its f, its loss and its R."""

    learner: str
    scores: str
    loss: str
    regularizer: str
    compare: Callable[[Episodes, Conv4], Comparison]


LINES: list[Line] = []


def line(
    learner: str, scores: str, loss: str, regularizer: str
) -> Callable[[Callable[[Episodes, Conv4], Comparison]], Callable[[Episodes, Conv4], Comparison]]:
    """Decorator of a comparison on tasks of images, float64, and a backbone in training: adds it to `LINES`."""

    def add(compare: Callable[[Episodes, Conv4], Comparison]) -> Callable[[Episodes, Conv4], Comparison]:
        LINES.append(Line(learner, scores, loss, regularizer, compare))
        return compare

    return add


@line("MultiTask", "w.x", "mean cross-entropy, all images", "none, heads are trained jointly")
def _multi_task(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MultiTask(backbone, _CLASSES, episodes.ways).double()
    features, labels = F.normalize(_features(backbone, episodes.images()), dim=-1), episodes.labels()
    tasks = replace(episodes, support=features, support_labels=labels, query=features, query_labels=labels)
    loss = formula.mean_cross_entropy
    value = formula.objective(tasks, learner.weight[episodes.classes], formula.linear, loss, formula.Joint(), loss)
    return Comparison(learner.meta_loss(episodes), value, list(learner.parameters()))


@line("ANIL", "w.x + b", "mean cross-entropy", "5 gradient steps")
def _anil(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = ANIL(backbone, episodes.ways, inner_rate=0.1, inner_steps=5).double()
    return _early_stopping(learner, episodes)


@line("MAML, head alone", "w.x + b", "mean cross-entropy", "5 gradient steps")
def _maml(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MAML(backbone, episodes.ways, inner_rate=0.1, inner_steps=5, layers="head").double()
    return _early_stopping(learner, episodes)


@line("ProtoNet", "-|x - w|^2", "summed -f of own class", "none")
def _protonet(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, start = _feature_tasks(episodes, backbone)
    value = formula.objective(
        tasks,
        start,
        formula.negative_squared_distance,
        formula.own_score,
        formula.Penalty(formula.no_penalty),
        formula.mean_cross_entropy,
    )
    return Comparison(ProtoNet(backbone).meta_loss(episodes), value, list(backbone.parameters()))


@line("ridge head", "w.x", "summed squared error", "0.5 |w|^2")
def _ridge(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, start = _feature_tasks(episodes, backbone)
    head = ridge(tasks.support, tasks.support_labels, tasks.ways, l2=0.5)
    own = formula.mean_cross_entropy(head.scores(tasks.query), tasks.query_labels).mean()
    penalty = formula.Penalty(formula.l2(0.5))
    value = formula.objective(tasks, start, formula.linear, formula.squared_error, penalty, formula.mean_cross_entropy)
    return Comparison(own, value, list(backbone.parameters()))


@line("MetaOptNet, ridge", "w.x", "summed squared error", "50 |w|^2")
def _metaoptnet(episodes: Episodes, backbone: Conv4) -> Comparison:
    return _ridge_learner(MetaOptNet(backbone, head="ridge", l2=50.0), 50.0, episodes, backbone)


@line("R2D2", "w.x", "summed squared error", "|w|^2 for each support image, its weight learnt")
def _r2d2(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = R2D2(backbone, l2=1.0, scale=1.0, random_shots=False)
    return _ridge_learner(learner, 1.0 * episodes.support.shape[1], episodes, backbone)


@line("logistic head, C = 3", "w.x + b", "summed cross-entropy", "|w|^2 / 6")
def _logistic(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, weight = _feature_tasks(episodes, backbone)
    # the solver passes no gradient on, so that its objective is a number and no function of the backbone
    fixed = tasks.with_images(tasks.support.detach(), tasks.query.detach())
    head = logistic_regression(fixed.support, fixed.support_labels, fixed.ways, c=3.0, tol=1e-12)
    own = formula.mean_cross_entropy(head.scores(fixed.query), fixed.query_labels).mean()
    start = F.pad(weight, (0, 1))
    penalty = formula.Penalty(formula.l2_but_for_bias(1 / 6))
    value = formula.objective(
        tasks, start, formula.affine, formula.summed_cross_entropy, penalty, formula.mean_cross_entropy
    )
    return Comparison(own, value, list(backbone.parameters()))


def _ridge_learner(learner: MetaOptNet | R2D2, l2: float, episodes: Episodes, backbone: Conv4) -> Comparison:
    """Both scale the scores by a number that is learnt, and that is 1 here."""
    tasks, start = _feature_tasks(episodes, backbone)
    penalty = formula.Penalty(formula.l2(l2))
    value = formula.objective(tasks, start, formula.linear, formula.squared_error, penalty, formula.mean_cross_entropy)
    return Comparison(learner.double().meta_loss(episodes), value, list(backbone.parameters()))


def _early_stopping(learner: ANIL | MAML, episodes: Episodes) -> Comparison:
    """Both learn a head from a common start; support and query images are normalised apart."""
    tasks = episodes.with_images(*(_features(learner.backbone, part) for part in (episodes.support, episodes.query)))
    head = learner.network.head
    start = torch.cat([head.weight, head.bias.unsqueeze(1)], 1).expand(episodes.tasks, -1, -1)
    steps = formula.EarlyStopping(learner.inner_steps, learner.inner_rate)
    loss = formula.mean_cross_entropy
    value = formula.objective(tasks, start, formula.affine, loss, steps, loss)
    return Comparison(learner.meta_loss(episodes), value, list(learner.parameters()))


def _feature_tasks(episodes: Episodes, backbone: nn.Module) -> tuple[Episodes, Tensor]:
    """The tasks with features, support and query images normalised together, and heads (B, N, D) of zeros."""
    features = _features(backbone, episodes.images())
    boundary = episodes.support.shape[1]
    tasks = episodes.with_images(features[:, :boundary], features[:, boundary:])
    return tasks, features.new_zeros(episodes.tasks, episodes.ways, features.shape[2])


def _features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features (B, M, D) of images (B, M, ...), one task after the other, as the network sees a task on its own."""

    def features(task: Tensor) -> Tensor:
        # running statistics are a copy: what BatchNorm changes in place cannot be differentiated afterwards
        return functional_call(backbone, {name: buffer.clone() for name, buffer in backbone.named_buffers()}, (task,))

    return torch.stack([features(task) for task in images])


@experiments.register("taxonomy")
class Taxonomy(Experiment):
    """The objectives of all last-layer learners, by one function of f, loss and R (W21 Tables 1 and 2), in float64.

    Value and gradient of each are compared with those of the learner itself, on tasks of noisy images and a Conv4 of
    random weights.

    ways, shots, queries: shape of the tasks, at least 3 ways
    tasks: tasks in a batch
    seeds: each gives tasks and weights; the largest differences are reported
    """

    def __init__(
        self, ways: int = 5, shots: int = 3, queries: int = 4, tasks: int = 4, seeds: Sequence[int] = (0, 1, 2)
    ) -> None:
        check_positive(queries=queries, tasks=tasks)
        if not 3 <= ways <= _CLASSES:
            raise ConfigError(
                f"ways is {ways}, but must be 3 to {_CLASSES}: for 2, scikit-learn and the logistic head mean another R"
            )
        if not seeds:
            raise ConfigError("seeds is empty; give one value at least")
        self.shape, self.tasks, self.seeds = TaskShape(ways, shots, queries), tasks, seeds

    def run(self, progress: bool = False) -> Findings:
        """Compare all lines on the tasks of every seed."""
        rows = []
        with tqdm(total=len(LINES) * len(self.seeds), unit="comparison", disable=not progress) as bar:
            for each in LINES:
                for seed in self.seeds:
                    rows.append(_compared(each, seed, self.shape, self.tasks))
                    bar.update()
        protocol = f"{self.tasks} {self.shape} tasks, seeds {' '.join(map(str, self.seeds))}"
        return Findings(rows, _verdict(rows, protocol), lambda figure: _draw(figure, rows, protocol), (8.6, 3.6))


def _compared(each: Line, seed: int, shape: TaskShape, tasks: int) -> dict[str, float | int | str]:
    """Value and relative differences; that of the gradient is nan where the learner has none."""
    episodes = _tasks(seed, shape, tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Conv4(_WIDTH, in_channels=1, image_size=_SIDE).double()
        result = each.compare(episodes, backbone)
    gradient_difference = float("nan")
    if result.own.requires_grad:
        own, by_formula = (_gradient(value, result.parameters) for value in (result.own, result.by_formula))
        gradient_difference = float((own - by_formula).abs().max() / own.abs().max())
    own_value, value = float(result.own.detach()), float(result.by_formula.detach())
    return {
        "learner": each.learner,
        "scores": each.scores,
        "loss": each.loss,
        "regularizer": each.regularizer,
        "seed": seed,
        "objective": own_value,
        "by_formula": value,
        "difference": abs(own_value - value) / abs(own_value),
        "gradient_difference": gradient_difference,
    }


def _gradient(value: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """All derivatives in one vector."""
    parts = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def _tasks(seed: int, shape: TaskShape, tasks: int) -> Episodes:
    """Tasks of noisy images with a pattern for each class, float64."""
    generator = torch.Generator().manual_seed(int(seeding.key(seed, "taxonomy")) >> 1)
    classes = torch.rand(tasks, _CLASSES, generator=generator).argsort(1)[:, : shape.ways]
    patterns = torch.randn(_CLASSES, 1, _SIDE, _SIDE, generator=generator, dtype=torch.float64)
    images, labels = [], []
    for count in (shape.shots, shape.queries):
        labels.append(torch.arange(shape.ways).repeat_interleave(count).expand(tasks, -1))
        clean = patterns[classes].repeat_interleave(count, 1)
        images.append(clean + 2 * torch.randn(clean.shape, generator=generator, dtype=torch.float64))
    keys = seeding.bits(seeding.key(seed, "taxonomy"), np.arange(tasks))
    return Episodes(images[0], labels[0], images[1], labels[1], classes, keys)


def _largest(rows: Sequence[dict], learner: str) -> tuple[float, float]:
    """Differences of value and gradient, the largest over seeds."""
    ours = [row for row in rows if row["learner"] == learner]
    return max(row["difference"] for row in ours), max(row["gradient_difference"] for row in ours)


def _verdict(rows: Sequence[dict], protocol: str) -> str:
    learners = list(dict.fromkeys(row["learner"] for row in rows))
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


def _draw(figure: Figure, rows: Sequence[dict], protocol: str) -> None:
    """A line a learner with its choices in words, and on a logarithmic axis how far it is from the formula."""
    axes = figure.subplots()
    lines = {
        row["learner"]: f"{row['learner']}\nf = {row['scores']}; {row['loss']}; R: {row['regularizer']}" for row in rows
    }
    places = range(len(lines))
    values, gradients = zip(*(_largest(rows, learner) for learner in lines))
    smallest = np.finfo(np.float64).eps / 100  # where differences of exactly zero are drawn
    axes.plot(np.maximum(values, smallest), places, "o", color="#0072B2", label="value")
    axes.plot(np.maximum(gradients, smallest), places, "s", mfc="none", color="#D55E00", label="gradient")
    axes.axvline(np.finfo(np.float64).eps, color="#666666", lw=0.9, ls=":", label="float64 epsilon")
    axes.set_yticks(places, list(lines.values()), fontsize=8)
    axes.invert_yaxis()
    right = max(1e-8, 10 * np.nanmax([*values, *gradients]))
    axes.set(xscale="log", xlim=(smallest / 2, right))
    axes.set_xlabel("relative difference, the largest over seeds (none: at the left edge)")
    axes.set_title(f"Last-layer objectives, formula against learner: {protocol}", loc="right", fontsize=9.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e4e4", lw=0.7)
    axes.legend(frameon=False, fontsize=8)
