"""How well photographs will be recognised, as the examples tell: heads are fitted without some and recognise them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from kshot.photos.heads import balanced_head
from kshot.solvers import HeadAdaptation

_MOST_ROUNDS = 40
_DRAWS = 5
_AFFORDABLE = 200_000  # scores of support images in all rounds of further draws
_BATCH_BYTES = 1 << 27  # of support features in one batch of rounds


@dataclass(frozen=True)
class ClassEstimate:
    """The accuracy on one class, 0..1, of how many different left-out examples, and its 95% Wilson interval."""

    name: str
    accuracy: float
    examples: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name}: {_percent(self.accuracy, self.low, self.high)}, {self.examples} examples left out"


@dataclass(frozen=True)
class Estimate:
    """The accuracy on new photographs, all classes equally frequent, as the examples tell it.

    Attributes
    ----------
    accuracy
        Mean over classes, 0..1.
    low, high
        Its 95% Wilson interval. A different example counts once, however often it was left out.
    classes
        The accuracy on each class that has at least two examples; a class with one is never left out.
    rounds
        How many heads were fitted, each without one example of each class.
    """

    accuracy: float
    low: float
    high: float
    classes: Sequence[ClassEstimate]
    rounds: int

    def __str__(self) -> str:
        return _percent(self.accuracy, self.low, self.high)

    @property
    def tried(self) -> int:
        """Different examples that were left out."""
        return sum(each.examples for each in self.classes)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The scores that left-out examples got: (T, N) of T trials, with the trials' examples (T,) and labels (T,)."""

    scores: Tensor
    examples: Tensor
    labels: Tensor
    rounds: int


def stratified_rounds(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Which examples each round leaves out: one of each class that has two or more, (R, classes with two or more).

    Every example is left out at least once, unless a class has more than 40. Leaving out a single example would make
    its class the smallest, which a head avoids: the estimate would be too low, by up to 98 points at two examples per
    class.

    Parameters
    ----------
    labels
        The class of each example, (S,).
    seed
        Names the order in which examples are left out.
    """
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels)
    rows = [np.flatnonzero(labels == way) for way in np.flatnonzero(counts > 1)]
    if not rows:
        return np.empty((0, 0), np.int64)
    once = min(_MOST_ROUNDS, int(counts.max()))
    affordable = _AFFORDABLE // (once * len(labels) * len(counts))
    rounds = min(_MOST_ROUNDS, once * max(1, min(_DRAWS, affordable)))
    return np.stack([_in_turn(own, rounds, generator) for own in rows], 1)


def _in_turn(rows: NDArray[np.int64], rounds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(rounds,) of the rows: all of them in random order, then all of them in another."""
    draws = [generator.permutation(rows) for _ in range(-(-rounds // len(rows)))]
    return np.concatenate(draws)[:rounds]


@torch.no_grad()
def left_out_scores(
    adaptation: HeadAdaptation, features: Tensor, labels: Tensor, ways: int, *, seed: int = 0, progress: bool = False
) -> LeftOut | None:
    """Scores of examples by heads that were fitted without them; None if no class has two examples.

    Parameters
    ----------
    adaptation
        Fits the heads.
    features, labels
        The examples, (S, D) and (S,).
    ways
        N, the number of classes.
    seed
        Names the order in which examples are left out.
    progress
        Show a bar on the terminal.
    """
    rounds = torch.from_numpy(stratified_rounds(labels.numpy(), seed))
    if not len(rounds):
        return None
    scores = []
    with tqdm(total=len(rounds), unit="round", desc="estimate", disable=not progress, delay=2) as bar:
        for some in _batches(rounds, features):
            kept = torch.ones(len(some), len(labels), dtype=torch.bool).scatter_(1, some, False)
            rest = kept.nonzero()[:, 1].view(len(some), -1)
            head = balanced_head(adaptation, features[rest], labels[rest], ways)
            scores.append(head.scores(features[some]).flatten(0, 1))
            bar.update(len(some))
    examples = rounds.flatten()
    return LeftOut(torch.cat(scores), examples, labels[examples], len(rounds))


def _batches(rounds: Tensor, features: Tensor) -> Iterator[Tensor]:
    yield from rounds.split(max(1, _BATCH_BYTES // (features.nbytes or 1)))


def estimated(left_out: LeftOut, class_names: Sequence[object]) -> Estimate:
    """The estimate that the scores of left-out examples give.

    Parameters
    ----------
    left_out
        What `left_out_scores` found.
    class_names
        The N classes.
    """
    right = (left_out.scores.argmax(1) == left_out.labels).double().numpy()
    labels, examples = left_out.labels.numpy(), left_out.examples.numpy()
    classes = []
    for way in np.unique(labels):
        of_class = labels == way
        count = len(np.unique(examples[of_class]))
        share = float(right[of_class].mean())
        classes.append(ClassEstimate(str(class_names[way]), share, count, *wilson(share, count)))
    mean = float(np.mean([each.accuracy for each in classes]))
    # the variance of a mean over classes, of which a small one is known less well
    effective = len(classes) ** 2 / sum(1 / each.examples for each in classes)
    return Estimate(mean, *wilson(mean, effective), classes, left_out.rounds)


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95% interval of Wilson (1927) for a share 0..1 of `count` trials."""
    z = float(stats.norm.ppf(0.975))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _percent(share: float, low: float, high: float) -> str:
    return f"{100 * share:.0f} % (95% interval {100 * low:.0f} to {100 * high:.0f} %)"
