"""What the examples tell of how far to trust a classifier, each part of it computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.errors import ConfigError
from kshot.photos.calibration import fitted_temperature
from kshot.photos.estimate import Estimate, LeftOut, estimated, left_out_scores
from kshot.photos.examples import Examples
from kshot.photos.learning_curve import ShotsNeeded, accuracy_curve, check_target, needed
from kshot.photos.rejection import largest_rank, lowest_familiarity
from kshot.photos.verdicts import ExampleVerdict, verdicts
from kshot.solvers import HeadAdaptation


class Evidence:
    """Of examples that were left out in turn.

    Parameters
    ----------
    adaptation
        Fits the heads.
    examples
        The examples.
    classes
        The N classes.
    seed
        Names the order in which examples are left out.
    temperature
        What scores are divided by, if it is known already.
    """

    def __init__(
        self,
        adaptation: HeadAdaptation,
        examples: Examples,
        classes: Sequence[Any],
        *,
        seed: int,
        temperature: float | None = None,
    ) -> None:
        self.adaptation, self.examples, self.classes, self.seed = adaptation, examples, classes, seed
        self._known: dict[str, Any] = {} if temperature is None else {"temperature": temperature}

    def left_out(self, *, progress: bool = False) -> LeftOut | None:
        """What left-out examples got; None if no class has two examples."""
        if "left out" not in self._known:
            self._known["left out"] = left_out_scores(
                self.adaptation, self.examples, len(self.classes), seed=self.seed, progress=progress
            )
        return self._known["left out"]

    def estimate(self, *, progress: bool = False) -> Estimate | None:
        """The accuracy to expect; None if no class has two examples."""
        left_out = self.left_out(progress=progress)
        return None if left_out is None else estimated(left_out, self.examples.series, self.classes)

    @property
    def temperature(self) -> float:
        """What scores are divided by so that probabilities are calibrated; 1 if no class has two examples."""
        if "temperature" not in self._known:
            left_out = self.left_out()
            self._known["temperature"] = 1.0 if left_out is None else fitted_temperature(left_out)
        return self._known["temperature"]

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (M, N) of scores (M, N)."""
        return torch.from_numpy(scores / self.temperature).softmax(1).numpy()

    def lowest_familiarity(self, reject: float) -> float:
        """Below which familiarity a photograph shows none of the classes.

        Raises
        ------
        ConfigError
            If `reject` is no share, or nothing can be left out.
        """
        _check_share("reject", reject)
        left_out = self._some_left_out("photographs of other things cannot be told")
        return lowest_familiarity(left_out.familiarity, left_out.weights, left_out.tried, reject)

    def largest_rank(self, coverage: float) -> float:
        """How improbable a class in a set may be, 0..1; errors as for `lowest_familiarity`."""
        _check_share("coverage", coverage)
        left_out = self._some_left_out("sets cannot be made")
        probabilities = torch.from_numpy(self.probabilities(left_out.scores.double().numpy()))
        return largest_rank(
            probabilities, left_out.labels, left_out.weights, examples=left_out.tried, coverage=coverage
        )

    def verdicts(self) -> list[ExampleVerdict]:
        """The verdict on each example, the least probable first."""
        labels = self.examples.labels.tolist()
        return verdicts(self.left_out(), labels, self.examples.names, self.classes, temperature=self.temperature)

    def shots_needed(self, target: float) -> ShotsNeeded:
        """How many examples per class give an accuracy; errors as for `lowest_familiarity`."""
        check_target(target, len(self.classes))
        tried = self._some_left_out("how accuracy grows cannot be seen").tried
        if "curve" not in self._known:
            self._known["curve"] = accuracy_curve(self.adaptation, self.examples, len(self.classes), seed=self.seed)
        return needed(self._known["curve"], tried, target, len(self.classes))

    def _some_left_out(self, consequence: str) -> LeftOut:
        left_out = self.left_out()
        if left_out is None:
            raise ConfigError(f"every class has a single example, so that {consequence}; give two or more of a class")
        return left_out


def _check_share(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{option} is {value}, but must be a share above 0 and below 1")
