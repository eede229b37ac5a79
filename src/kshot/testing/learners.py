"""What every learner keeps to: `check_learner` holds a class to it, by errors that say how to mend it."""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kshot.errors import ConfigError
from kshot.learners.base import FeatureLearner, Learner, learners
from kshot.learners.training_split import check_observed, keeps_statistics, observe
from kshot.testing.refusals import (
    options_without_sense_are_refused,
    support_sets_that_do_not_show_every_class_are_refused,
    tasks_of_another_number_of_classes_are_learnt_or_refused,
    tasks_without_support_images_are_refused,
)
from kshot.testing.requirements import (
    accuracy_on,
    error_of,
    is_taken_out_again,
    require,
    require_equal,
    require_equal_gradients,
)
from kshot.testing.subject import CLASSES, STEPS, WAYS, Subject, with_support


def check_learner(cls: type[Learner], *, accuracy: float = 0.8, **options: Any) -> None:
    """Hold a learner's class to the contracts that kshot's own tests hold every registered learner to.

    The learner is built around a small `kshot.Conv4` and meets tasks of a small made-up dataset; it takes seconds. What
    sets a learner apart is read from the attributes that `kshot.Learner` documents, such as
    `follows_label_permutations`.

    Parameters
    ----------
    cls
        The class, registered by ``@learners.register("name")``.
    accuracy
        What it reaches, after ten steps, on tasks of three classes that are far apart.
    **options
        Options of the constructor; `num_classes` and `ways` are filled in.

    Raises
    ------
    AssertionError
        If a contract is broken: which one, what was seen, and what to do.
    """
    subject = Subject(cls, accuracy, options)
    for contract in CONTRACTS:
        name = contract.__name__.removeprefix("_").replace("_", " ")
        try:
            contract(subject)
        except AssertionError as error:
            raise AssertionError(f"{cls.__name__} breaks the contract {name!r}: {error}") from error
        except Exception as error:
            raise AssertionError(
                f"{cls.__name__} breaks the contract {name!r}: {type(error).__name__}: {error}"
            ) from error


def _is_registered_and_rebuilt_from_its_options(subject: Subject) -> None:
    known = subject.cls in learners.values()
    require(known, "it has no name; decorate the class with @learners.register('name')")
    positional = [
        name
        for name, parameter in inspect.signature(subject.cls).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "backbone"
    ]
    require(not positional, f"{', '.join(positional)} may be given by position; put * after backbone")
    learner = subject.build()
    again = learners[learners.name_of(learner)](**learner.options)
    require(again.options == learner.options, "the options that it remembers build a learner with other options")
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (learner, again)]
    require(shapes[0] == shapes[1], "the options that it remembers build a learner with other weights")


def _scores_have_a_row_per_query_image(subject: Subject) -> None:
    scores = subject.build().eval().scores(subject.unseen_tasks())
    require(scores.shape == (6, 5 * WAYS, WAYS), f"scores are {tuple(scores.shape)}; return (tasks, queries, ways)")
    require(bool(scores.isfinite().all()), "scores are not all finite; look for logarithms and divisions")


def _the_same_seed_gives_the_same_numbers(subject: Subject) -> None:
    first, second = subject.build(), subject.build()
    advice = "draw random numbers in training from episodes.keys, and none in evaluation"
    batch = subject.training_tasks()
    require_equal(first.meta_loss(batch), second.meta_loss(batch), f"two losses differ; {advice}", exact=True)
    one, other = (learner.eval().scores(subject.unseen_tasks()) for learner in (first, second))
    require_equal(one, other, f"two scores differ; {advice}", exact=True)


def _the_loss_that_is_reported_is_the_one_that_is_minimised(subject: Subject) -> None:
    batch = subject.training_tasks(dtype=torch.float64)
    reported = subject.build().double().accumulate_gradients(batch)
    require({"loss", "accuracy"} <= reported.keys(), "accumulate_gradients returns no 'loss' and 'accuracy'; do so")
    message = "accumulate_gradients reports another loss than meta_loss; override objective, or both"
    require_equal(reported["loss"], subject.build().double().meta_loss(batch).detach(), message)


def _scores_follow_a_permutation_of_the_labels(subject: Subject) -> None:
    learner, permutation = subject.build().double().eval(), torch.tensor([2, 0, 1])
    if not learner.follows_label_permutations:
        return
    episodes = subject.unseen_tasks(torch.float64)
    support_labels, query_labels = permutation[episodes.support_labels], permutation[episodes.query_labels]
    message = (
        "classes with other numbers get other scores; learn nothing per label number, or declare "
        "follows_label_permutations = False"
    )
    renamed = replace(episodes, support_labels=support_labels, query_labels=query_labels)
    require_equal(learner.scores(renamed)[..., permutation], learner.scores(episodes), message, rtol=1e-5, atol=1e-5)


def _scores_do_not_depend_on_the_order_of_the_support_images(subject: Subject) -> None:
    learner, order = subject.build().double().eval(), torch.tensor([7, 2, 5, 0, 8, 3, 6, 1, 4])
    if not learner.ignores_support_order:
        return
    episodes = subject.unseen_tasks(torch.float64)
    message = (
        "another order of the support images gives other scores; go by episodes.support_labels and not by the place of "
        "an image, or declare ignores_support_order = False"
    )
    shuffled = learner.scores(with_support(episodes, order))
    require_equal(shuffled, learner.scores(episodes), message, rtol=1e-5, atol=1e-5)


def _support_sets_may_be_unequal(subject: Subject) -> None:
    episodes = with_support(subject.unseen_tasks(), torch.tensor([0, 1, 2, 3, 4, 6, 7]))  # three, two and two images
    right = accuracy_on(copy.deepcopy(subject.trained).eval(), episodes)
    message = f"accuracy {right:.2f} with three, two and two support images; go by the labels and not by shapes"
    require(right > 0.5, message)


def _training_beats_chance_clearly_on_classes_that_are_far_apart(subject: Subject) -> None:
    learner, batch = copy.deepcopy(subject.trained).train(), subject.training_tasks(24)
    before, after = (float(each.meta_loss(batch).detach()) for each in (subject.build(), learner))
    require(after < before, f"{STEPS} steps took the loss from {before:.3g} to {after:.3g}; look at the gradients")
    right = accuracy_on(learner.eval(), subject.unseen_tasks())
    message = f"accuracy {right:.2f} after {STEPS} steps, not above {subject.accuracy}; is scores what training learns?"
    require(right > subject.accuracy, message)


def _a_saved_and_loaded_learner_gives_equal_scores(subject: Subject) -> None:
    learner, other, file = subject.build(), subject.build(), io.BytesIO()
    for parameter in learner.parameters():
        nn.init.normal_(parameter, std=0.1)
    observe(learner, subject.train_split)
    torch.save(learner.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    saved, loaded = (each.eval().scores(subject.unseen_tasks()) for each in (learner, other))
    message = "weights that are loaded give other scores; keep what scores depend on in parameters and buffers"
    require_equal(loaded, saved, message, exact=True)


def _statistics_over_the_training_split_are_computed_and_kept(subject: Subject) -> None:
    if not keeps_statistics(subject.cls):
        return
    learner = subject.build_unobserved()
    kept = {name for name, _ in learner.named_buffers(recurse=False)} & learner.state_dict().keys()
    advice = "register a buffer of the learner itself that starts as torch.nan, and fill it in observe_training_split"
    refused = error_of(lambda: check_observed(learner))
    require(bool(kept) and isinstance(refused, ConfigError), f"a learner without its statistic is not told; {advice}")
    observe(learner, subject.train_split)
    refused = error_of(lambda: check_observed(learner))
    require(refused is None, f"observe_training_split leaves a buffer as NaN: {refused}; {advice}")
    before = {name: learner.get_buffer(name).clone() for name in kept}
    half = replace(
        subject.train_split,
        images=subject.train_split.images[: len(subject.train_split.images) // 2],
        counts=subject.train_split.counts[: CLASSES // 2],
    )
    observe(learner, half)
    changed = any(not torch.equal(before[name], learner.get_buffer(name)) for name in kept)
    require(changed, "half of the training split gives the same statistic as all of it; compute it from the images")


def _gradients_reach_every_parameter_that_learns_and_no_other(subject: Subject) -> None:
    learner = subject.build().double()
    learner.accumulate_gradients(subject.training_tasks(12, torch.float64))
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            require(parameter.grad is None, f"{name} does not learn, but has a gradient; leave its .grad alone")
            continue
        if parameter.grad is None and not learner.learns_all_parameters:
            continue
        require(parameter.grad is not None, f"{name} has no gradient; use it in the objective, or freeze it")
        assert parameter.grad is not None
        if name in learner.parameters_without_effect:
            require(bool(parameter.grad.abs().max() < 1e-12), f"{name} has an effect, but is said to have none")
        elif not is_taken_out_again(name):
            message = f"the gradient of {name} is zero; use it, or list it in parameters_without_effect"
            require(bool(parameter.grad.any()), message)


def _gradients_equal_those_of_a_plain_loop_over_tasks(subject: Subject) -> None:
    batch = subject.training_tasks(dtype=torch.float64)
    if batch.support.shape[1] < 2:
        return  # single images, whose statistics are those of the batch by definition
    batched, looped = subject.build().double(), subject.build().double()
    batched.accumulate_gradients(batch)
    for task in range(batch.tasks):
        looped.accumulate_gradients(batch.part(task, task + 1))
    for parameter in looped.parameters():
        if parameter.grad is not None:
            parameter.grad /= batch.tasks
    message = "gradients are not the mean of those of the single tasks; average over tasks, and use batch_of_tasks"
    require_equal_gradients(batched, looped, message)


def _training_without_query_images_is_possible_if_it_needs_none(subject: Subject) -> None:
    learner = subject.build()
    if learner.needs_queries:
        return
    measured = learner.accumulate_gradients(subject.training_tasks(queries=0))
    require(bool(measured["loss"].isfinite()), "its loss is not finite without query images; declare needs_queries")


def _features_of_an_image_do_not_depend_on_its_batch(subject: Subject) -> None:
    learner = subject.build().double().eval()
    if not isinstance(learner, FeatureLearner):
        return
    images = subject.unseen_tasks(torch.float64).query.flatten(0, 1)
    message = "features change with the other images of the batch, though a task's are computed once for all tasks"
    require_equal(learner.features(images)[3:5], learner.features(images[3:5]), message)


def _tasks_at_once_change_rounding_only(subject: Subject) -> None:
    if "tasks_at_once" not in subject.parameters:
        return
    one, many = (subject.build(tasks_at_once=count).double() for count in (1, 6))
    batch, unseen = subject.training_tasks(dtype=torch.float64), subject.unseen_tasks(torch.float64)
    advice = "one task after the other and several at once disagree; keep what belongs to a task apart from other tasks"
    losses = [each.accumulate_gradients(batch)["loss"] for each in (many, one)]
    require_equal(losses[0], losses[1], f"losses: {advice}")
    require_equal_gradients(many, one, advice, but_for_rounding=one.magnifies_rounding)
    for learner in (one, many):
        learner.eval()
    for statistics in one.statistics_offered:
        one.statistics_at_test = many.statistics_at_test = statistics
        require_equal(one.scores(unseen), many.scores(unseen), f"{statistics} scores: {advice}", rtol=1e-9, atol=1e-11)


def _a_compiled_backbone_changes_nothing(subject: Subject) -> None:
    learner, episodes = subject.build(), subject.unseen_tasks()
    if not learner.can_compile:
        return
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # of dropout
        expected = learner.scores(episodes)
        learner.backbone.compile(backend="eager")  # type: ignore[union-attr]
        torch.manual_seed(0)
        message = "torch.compile changes its scores; declare can_compile = False"
        require_equal(learner.scores(episodes), expected, message, rtol=1.3e-6, atol=1e-5)


CONTRACTS: tuple[Callable[[Subject], None], ...] = (
    _is_registered_and_rebuilt_from_its_options,
    _scores_have_a_row_per_query_image,
    _the_same_seed_gives_the_same_numbers,
    _the_loss_that_is_reported_is_the_one_that_is_minimised,
    options_without_sense_are_refused,
    tasks_of_another_number_of_classes_are_learnt_or_refused,
    tasks_without_support_images_are_refused,
    support_sets_that_do_not_show_every_class_are_refused,
    _scores_follow_a_permutation_of_the_labels,
    _scores_do_not_depend_on_the_order_of_the_support_images,
    _features_of_an_image_do_not_depend_on_its_batch,
    _gradients_reach_every_parameter_that_learns_and_no_other,
    _gradients_equal_those_of_a_plain_loop_over_tasks,
    _tasks_at_once_change_rounding_only,
    _training_without_query_images_is_possible_if_it_needs_none,
    _statistics_over_the_training_split_are_computed_and_kept,
    _training_beats_chance_clearly_on_classes_that_are_far_apart,
    _support_sets_may_be_unequal,
    _a_saved_and_loaded_learner_gives_equal_scores,
    _a_compiled_backbone_changes_nothing,
)
