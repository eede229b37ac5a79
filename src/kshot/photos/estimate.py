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

from kshot.photos.examples import Examples
from kshot.photos.heads import balanced_head
from kshot.photos.rejection import familiarity
from kshot.solvers import HeadAdaptation

# measured by benchmarks/photo_answers.py estimates, on groceries of which nothing was chosen; see docs/photographs.md
CAUTION = (
    "The interval allows for another day: on groceries it held the accuracy on other days in 95 to 98 of 100 tasks, "
    "though 4 to 5 points fewer were right than on the day of the examples (11 with 20 classes). Another season, "
    "camera or place may cost more."
)
_MOST_ROUNDS = 40
_DRAWS = 5
_AFFORDABLE = 200_000  # scores of support images in all rounds of further draws
_NAMED = 5  # classes in a sentence
# As many left-out examples tell as much of other days as any larger number does: chosen on groceries with even numbers,
# where the interval then holds the accuracy on other days in 97 to 100 % of tasks of 2 to 20 classes, 3 to 8 examples.
_OCCASION = 60
_NOTHING = 1e-9
_BATCH_BYTES = 1 << 27  # of support features in one batch of rounds


@dataclass(frozen=True)
class ClassEstimate:
    """The accuracy on one class, 0..1, and its 95% interval, as for `Estimate`.

    Attributes
    ----------
    name
        The class.
    accuracy, low, high
        The share of left-out examples that were recognised, and its interval.
    examples
        How many different examples were left out.
    series
        Of how many series they are; of a single one, examples are left out one by one.
    """

    name: str
    accuracy: float
    examples: int
    series: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name}: {percent(self.accuracy, self.low, self.high)}, {self.examples} examples left out"


@dataclass(frozen=True)
class Estimate:
    """The accuracy on new photographs, all classes equally frequent, as the examples tell it.

    Attributes
    ----------
    accuracy
        Mean over classes, 0..1.
    low, high
        Its 95% interval, that of Clopper and Pearson (1934), for photographs like the examples, also of another day. A
        series counts once, however many examples it has and however often it was left out. What differs between days
        is in no example; it is allowed for by never counting more than 60 examples in all, see `CAUTION`.
    classes
        The accuracy on each class that has at least two examples; a class with one is never left out.
    rounds
        How many heads were fitted, each without one series of each class.
    """

    accuracy: float
    low: float
    high: float
    classes: Sequence[ClassEstimate]
    rounds: int

    def __str__(self) -> str:
        return percent(self.accuracy, self.low, self.high)

    @property
    def tried(self) -> int:
        """Different examples that were left out."""
        return sum(each.examples for each in self.classes)

    @property
    def one_occasion(self) -> list[str]:
        """Classes whose examples nearly repeat each other: nothing is known of photographs from another occasion."""
        return [each.name for each in self.classes if each.series == 1]

    @property
    def caution(self) -> str:
        """What the estimate cannot know, in a sentence or two."""
        alike = self.one_occasion
        if not alike:
            return CAUTION
        named = ", ".join(alike[:_NAMED]) + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
        return (
            f"The examples of {named} nearly repeat each other, so that the estimate says nothing about these classes "
            f"on other occasions: add photographs from another time or place. {CAUTION}"
        )


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What left-out examples got in T trials.

    Attributes
    ----------
    scores
        (T, N), by heads that were fitted without them.
    familiarity
        (T,), how much they resemble the examples that were kept; see `kshot.photos.rejection`.
    examples, labels
        Number and class of the example in each trial, (T,).
    rounds
        How many heads were fitted.
    """

    scores: Tensor
    familiarity: Tensor
    examples: Tensor
    labels: Tensor
    rounds: int

    @property
    def tried(self) -> int:
        """Different examples that were left out."""
        return len(self.examples.unique())

    @property
    def weights(self) -> Tensor:
        """(T,) weight of each trial, float64: classes count equally, trials of a class equally, with the sum 1."""
        counts = self.labels.bincount(minlength=self.scores.shape[1]).double()
        return 1 / (counts[self.labels] * (counts > 0).sum())


def stratified_rounds(
    labels: NDArray[np.int64], series: NDArray[np.int64], seed: int, *, draws: int = _DRAWS
) -> list[NDArray[np.int64]]:
    """The rows that each round leaves out: one series of each class that has several, else one of its examples.

    Every series is left out at least once, unless a class has more than 40. A class with a single example is never
    left out. Leaving out a single example would make its class the smallest, which a head avoids: the estimate would
    be too low, by up to 98 points at two examples per class.

    Parameters
    ----------
    labels, series
        Class and series of each example, (S,).
    seed
        Names the order in which examples are left out.
    draws
        How often every series is left out, as far as that is affordable.
    """
    generator = np.random.default_rng(seed)
    units = [_units(np.flatnonzero(labels == way), series) for way in range(labels.max() + 1)]
    units = [parts for parts in units if len(parts) > 1]
    if not units:
        return []
    once = min(_MOST_ROUNDS, max(map(len, units)))
    affordable = _AFFORDABLE // (once * len(labels) * (int(labels.max()) + 1))
    rounds = min(_MOST_ROUNDS, once * max(1, min(draws, affordable)))
    turns = [_in_turn(len(parts), rounds, generator) for parts in units]
    return [np.concatenate([parts[turn[number]] for parts, turn in zip(units, turns)]) for number in range(rounds)]


def _units(rows: NDArray[np.int64], series: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """What is left out of a class at a time, of its rows: a series, or one example if there is one series only."""
    numbers = np.unique(series[rows])
    return [rows[series[rows] == number] for number in numbers] if len(numbers) > 1 else list(rows[:, None])


def _in_turn(count: int, rounds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(rounds,) of 0..count-1: all of them in random order, then all of them in another."""
    draws = [generator.permutation(count) for _ in range(-(-rounds // count))]
    return np.concatenate(draws)[:rounds]


@torch.no_grad()
def left_out_scores(
    adaptation: HeadAdaptation, examples: Examples, ways: int, *, seed: int = 0, progress: bool = False
) -> LeftOut | None:
    """Scores of examples by heads that were fitted without them; None if no class has two examples.

    Parameters
    ----------
    adaptation
        Fits the heads.
    examples
        The examples of all classes.
    ways
        N, the number of classes.
    seed
        Names the order in which examples are left out.
    progress
        Show a bar on the terminal.
    """
    features, plain, labels = examples.features, examples.plain, examples.labels
    rounds = stratified_rounds(labels.numpy(), examples.series.numpy(), seed)
    if not rounds:
        return None
    scores, familiar, asked = [], [], []
    with tqdm(total=len(rounds), unit="round", desc="estimate", disable=not progress, delay=2) as bar:
        for some in _batches(rounds, labels, features):
            kept = torch.ones(len(some), len(labels), dtype=torch.bool).scatter_(1, some, False)
            rest = kept.nonzero()[:, 1].view(len(some), -1)
            head = balanced_head(adaptation, features[rest], labels[rest], ways)
            scores.append(head.scores(plain[some]).flatten(0, 1))
            familiar.append(familiarity(plain[some], features[rest], labels[rest]).flatten())
            asked.append(some.flatten())
            bar.update(len(some))
    rows = torch.cat(asked)
    return LeftOut(torch.cat(scores), torch.cat(familiar), rows, labels[rows], len(rounds))


def _batches(rounds: Sequence[NDArray[np.int64]], labels: Tensor, features: Tensor) -> Iterator[Tensor]:
    """Rows (rounds, left out) of rounds that leave out equally many examples of each class, in affordable batches."""
    alike: dict[bytes, list[Tensor]] = {}
    for rows in map(torch.from_numpy, rounds):
        alike.setdefault(labels[rows].numpy().tobytes(), []).append(rows)
    for group in alike.values():
        yield from torch.stack(group).split(max(1, _BATCH_BYTES // (features.nbytes or 1)))


def estimated(left_out: LeftOut, series: Tensor, class_names: Sequence[object]) -> Estimate:
    """The estimate that the scores of left-out examples give.

    Parameters
    ----------
    left_out
        What `left_out_scores` found.
    series
        The series of each example, (S,).
    class_names
        The N classes.
    """
    right = (left_out.scores.argmax(1) == left_out.labels).double().numpy()
    labels, examples = left_out.labels.numpy(), left_out.examples.numpy()
    classes, counts = [], []
    for way in np.unique(labels):
        of_class = labels == way
        rows = np.unique(examples[of_class])
        number = len(series[torch.from_numpy(rows)].unique())
        counts.append(number if number > 1 else len(rows))
        share = float(right[of_class].mean())
        classes.append(
            ClassEstimate(str(class_names[way]), share, len(rows), number, *on_other_days(share, counts[-1]))
        )
    mean = float(np.mean([each.accuracy for each in classes]))
    return Estimate(mean, *on_other_days(mean, _effective(classes, counts)), classes, left_out.rounds)


def _effective(classes: Sequence[ClassEstimate], counts: Sequence[int]) -> float:
    """How many trials would leave as much doubt: a small class is known less well, and often recognised less well.

    The variance of each class is that of its share after one more success and one more failure.
    """
    trials = np.asarray(counts, np.float64)
    shares = (np.asarray([each.accuracy for each in classes]) * trials + 1) / (trials + 2)
    variances = shares * (1 - shares)
    return float(variances.mean() * len(classes) ** 2 / (variances / trials).sum())


def on_other_days(share: float, count: float) -> tuple[float, float]:
    """The 95% interval of the share 0..1 on photographs of other days, if it is `share` of `count` on those at hand.

    That of Clopper and Pearson (1934) for a count that stays below 60, however large `count` is.
    """
    trials = 1 / (1 / count + 1 / _OCCASION)
    right = share * trials
    wrong = trials - right
    low = stats.beta.ppf(0.025, right, wrong + 1) if right > 0 else 0.0
    high = stats.beta.ppf(0.975, right + 1, wrong) if wrong > _NOTHING else 1.0
    return float(low), float(high)


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95% interval of Wilson (1927) for a share 0..1 of `count` trials."""
    z = float(stats.norm.ppf(0.975))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def percent(share: float, low: float, high: float) -> str:
    """A share 0..1 with its 95% interval, as it is shown."""
    return f"{100 * share:.0f} % (95% interval {100 * low:.0f} to {100 * high:.0f} %)"
