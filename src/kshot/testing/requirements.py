"""What the contracts of a learner are written with: requirements whose errors say what was seen, and what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import KshotError
from kshot.learners.base import Learner


def require(condition: bool, message: str) -> None:
    """AssertionError with this message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def require_equal(
    actual: Tensor, expected: Tensor, message: str, *, exact: bool = False, rtol: float = 1e-6, atol: float = 1e-9
) -> None:
    """AssertionError unless the numbers are close, or the same if they must be exact."""
    rtol, atol = (0.0, 0.0) if exact else (rtol, atol)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{message}\n{text}")


def require_equal_gradients(
    learner: Learner, reference: Learner, message: str, *, but_for_rounding: bool = False
) -> None:
    """AssertionError unless both learners have the same gradients, but for those that are rounding alone."""
    for (name, expected), actual in zip(reference.named_parameters(), learner.parameters()):
        if not (but_for_rounding and is_taken_out_again(name)):
            text = f"gradients of {name}: {message}"
            torch.testing.assert_close(
                actual.grad, expected.grad, rtol=1e-9, atol=1e-11, msg=functools.partial("{}\n{}".format, text)
            )


def is_taken_out_again(name: str) -> bool:
    """Whether it is the bias of a convolution of Conv4, which BatchNorm takes out again."""
    return "backbone" in name and name.endswith(".0.bias")


def accuracy_on(learner: Learner, episodes: Episodes) -> float:
    """The accuracy of a learner on all query images."""
    return (learner.scores(episodes).argmax(-1) == episodes.query_labels).float().mean().item()


def error_of(call: Callable[[], object]) -> KshotError | None:
    """The error that a call raises on purpose, or None."""
    try:
        call()
    except KshotError as error:
        return error
    return None
