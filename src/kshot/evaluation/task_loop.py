"""The one loop over batches of tasks, which every measurement uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from tqdm import tqdm

from kshot.data.augmentation import PhotoAugmentation, prepare_images
from kshot.data.dataset import Normalization
from kshot.data.episodes import Episodes, IntArray, Sampler
from kshot.errors import DivergenceError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import Learner
from kshot.measures import Statistics
from kshot.memory import keep_freed_memory

Result = TypeVar("Result")

TASKS_AT_ONCE = 16  # that go through the network image by image: they take long, and their maps take memory


def for_tasks(
    learner: Learner,
    function: Callable[[Episodes], Result],
    *,
    sampler: Sampler,
    numbers: IntArray,
    normalization: Normalization | None,
    augmentation: PhotoAugmentation | None = None,
    at_once: int = TASKS_AT_ONCE,
    done: int = 0,
    precision: Literal["float32", "bf16"] = "float32",
    statistics: Statistics | None = None,
    progress: str | None = None,
) -> list[Result]:
    """Call a function with some tasks at a time, until it has seen all of them.

    Meanwhile the learner is in evaluation mode, and the tasks are on its device.

    Parameters
    ----------
    learner
        The learner that the function measures.
    function
        Takes a batch of tasks as the learner sees them, in the order of `numbers`.
    sampler
        Draws the tasks.
    numbers
        Numbers (M,) of the tasks.
    normalization
        Normalisation of the images, as the split has it; None if the tasks hold vectors or features.
    augmentation
        Random changes to the images, as in training; None for the images as they are.
    at_once
        Tasks per batch.
    done
        Tasks at the beginning of `numbers` that are left out, since they were measured before.
    precision, statistics
        As for `evaluate`.
    progress
        What the progress bar on the terminal is called; None for no bar.

    Returns
    -------
    list
        What the function returned, one result per batch.

    Raises
    ------
    DivergenceError
        If the function raises it; the error then names the task by its number.
    """
    device = device_of(learner)
    if device.type == "cpu":
        keep_freed_memory()
    results = []
    bar = tqdm(total=len(numbers), initial=done, unit="task", desc=progress, disable=progress is None)
    with evaluating(learner, precision, statistics=statistics), bar:
        for start in range(done, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            episodes = prepare_images(sampler.episodes(batch, device), normalization, augmentation=augmentation)
            with _naming(batch):
                results.append(function(episodes))
            bar.update(len(batch))
    return results


@contextmanager
def _naming(numbers: IntArray) -> Iterator[None]:
    """A DivergenceError names the task by its number instead of its place in the batch."""
    try:
        yield
    except DivergenceError as error:
        if error.task is not None:
            error.task = int(numbers[error.task])
        raise
