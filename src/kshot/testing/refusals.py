"""What every learner refuses: tasks that it cannot learn, and options without sense, by errors that say so."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, DataError
from kshot.testing.requirements import error_of, require
from kshot.testing.subject import Subject, with_support


def tasks_of_another_number_of_classes_are_learnt_or_refused(subject: Subject) -> None:
    """5-way tasks have scores of five classes, or end in a ConfigError that says 5-way."""
    learner = subject.build().eval()
    episodes = subject.unseen_tasks(ways=5)
    if learner.bound_ways is None:
        scores = learner.scores(episodes)
        require(scores.shape == (6, 25, 5), f"scores of 5-way tasks are {tuple(scores.shape)}; go by episodes.ways")
        return
    error = error_of(lambda: learner.scores(episodes))
    message = f"5-way tasks end in {error!r}; refuse them by ConfigError, as check_ways of InitializationLearner does"
    require(isinstance(error, ConfigError) and "5-way" in str(error), message)


def support_sets_that_do_not_show_every_class_are_refused(subject: Subject) -> None:
    """A class without a support image, or a label of no class, is a DataError that names the task."""
    for labels, fault in (
        ([0, 0, 0, 2, 2, 2, 2, 2, 2], "class 1 of task 4 has no support image"),
        ([0, 0, 0, 1, 1, 1, 2, 2, 3], "task 4 has the support label 3"),
        ([0, 0, 0, 1, 1, 1, 2, 2, -1], "task 4 has the support label -1"),
    ):
        episodes = subject.unseen_tasks()
        episodes.support_labels[4] = torch.tensor(labels)
        learner = subject.build()
        calls: list[Callable[[Episodes], object]] = [learner.eval().scores]
        if learner.tells_support_from_query:
            calls += [learner.accumulate_gradients, learner.meta_loss]
        for call in calls:
            learner.train(call is not calls[0])
            error = error_of(lambda call=call, episodes=episodes: call(episodes))  # type: ignore[misc]
            message = f"the fault {fault!r} ends in {error!r}; call kshot.solvers.heads.check_labels first"
            require(isinstance(error, DataError) and fault in str(error), message)


def tasks_without_support_images_are_refused(subject: Subject) -> None:
    """An empty support set is a DataError."""
    episodes = with_support(subject.unseen_tasks(), torch.arange(0))
    error = error_of(lambda: subject.build().eval().scores(episodes))
    message = f"an empty support set ends in {error!r}; call kshot.solvers.heads.check_labels first"
    require(isinstance(error, DataError) and "support image" in str(error), message)


def options_without_sense_are_refused(subject: Subject) -> None:
    """A number of zero and an unknown choice are a ConfigError that names the option and its value."""
    for option, value in (("num_classes", 0), ("ways", 0), ("tasks_at_once", 0), ("normalize_over", "Batch")):
        if option in subject.parameters:
            error = error_of(lambda option=option, value=value: subject.build(**{option: value}))  # type: ignore[misc]
            message = f"{option}={value!r} ends in {error!r}; refuse it by ConfigError, as kshot.errors has checks for"
            require(isinstance(error, ConfigError) and f"{option} is {value!r}" in str(error), message)
