"""Several initialisations, one for each group of similar tasks: TSA-MAML (Zhou et al. 2021, Z21 for short)."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_choice, check_not_negative, check_positive
from kshot.learners.base import learners
from kshot.learners.group_weights import CommonAndOffsets, SeparateWeights
from kshot.learners.initialization import Gradients, as_vectors, batch_norm_weights
from kshot.learners.maml import MAML
from kshot.learners.relabelling import check_shifts, cyclic_shifts, mean_losses_over_shifts, with_equal_rows
from kshot.learners.task_chunks import chunk_size, in_chunks
from kshot.solvers.descent import Weights, gradient_descent

_counting = threading.Lock()  # tasks may choose their groups side by side


@learners.register("tsa-maml")
class TSAMAML(MAML):
    """MAML with m initialisations theta_1..theta_m, each of which serves a group of similar tasks (Z21 Algorithm 1).

    ::

        theta* = MAML's initialisation; theta_1..theta_m = means of the k-means groups of many tasks' optima
        for each task i of the batch, with support set S_i and query set Q_i:
            theta_i* = theta* after assignment_steps of gradient descent on L(.; S_i)  (the estimated optimum)
            k = argmin over k of  |theta_i* - theta_k|                                 (the task's group)
            phi_i = theta_k after inner_steps of gradient descent on L(.; S_i)         (MAML's inner loop)
            theta_k = outer optimiser's step along  d L(phi_i; Q_i) / d theta_k        (mean over the batch)

    The other initialisations get no gradient at all, so that an optimiser leaves them and their moments alone.
    `kshot tsa train` finds theta* by MAML, and the first theta_1..theta_m by k-means; without it, all start close to
    random weights. With one group this is MAML.

    Two options go beyond the paper. `symmetrize` takes out of theta_i* what depends on which class has which label, so
    that groups are kinds of tasks and not of numberings. `sharing` keeps a part theta_0 that every task moves.

    The vector of a task or of an initialisation, (D,), holds the weights that adapt, less those that `cluster_norms`
    and `cluster_head` leave out, as differences from theta*. What is kept and not learnt, theta* among it, are
    parameters without a gradient.

    Parameters
    ----------
    groups
        m, the number of initialisations (Z21: 5, and 3 for tasks of three domains).
    assignment
        The nearest of the "current" initialisations (Z21's Algorithm 1), or of the "initial" ones, as k-means found
        them (Z21's release).
    assignment_steps
        Gradient steps from theta* to the estimated optimum, with `inner_rate`.
    symmetrize
        What makes theta_i* the same for any numbering of the task's classes: "none" (Z21); "shifts" for the mean over
        cyclic shifts of the labels, each of which is a descent; "shared-head" for one descent from theta* with equal
        rows of the head, as in UnicornMAML, whose head is then left out. Tasks of regression have no labels to shift.
    shifts
        Of the labels, for "shifts": from 1, which changes nothing, to the number of ways; None for the number of ways.
        With a single step all shifts together cost one pass, and groups agree with domains as well as after 20 steps
        (docs/tsa-maml.md): the best agreement per cost, together with ``assignment="initial"``.
    cluster_norms
        Count scale and shift of BatchNorm among the weights whose distance is taken; the release leaves them out.
    cluster_head
        Count the head among the weights whose distance is taken.
    cluster_components
        k, to take distances along the k leading principal axes of the tasks' vectors alone, in units of their standard
        deviation along each; 0 for Euclidean distances (Z21), in which a few axes along which all tasks differ outweigh
        those that tell kinds of tasks apart. It takes some thirty solutions for each axis (docs/tsa-maml.md).
        `kshot tsa train` finds the axes; without it they are random.
    sharing
        "none" for groups that learn apart from each other (Z21), or "offset" for theta_k = theta_0 + delta_k: every
        task moves theta_0, and a group's tasks move its delta_k too. theta_0 starts at the mean of the groups.
    offset_scale
        How fast delta_k learns compared with theta_0: it is this times a parameter, which the outer optimiser moves as
        it moves theta_0.
    offset_decay
        Adds half of this times |delta_k|^2, averaged over tasks, to the objective.

    Attributes
    ----------
    usage
        (m,) the training tasks of each group so far.
    unused_for
        (m,) the training tasks of the steps since the last one with a task of the group.
    axes
        (k, D), along which distances are taken.
    """

    usage: Tensor
    unused_for: Tensor
    axes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        groups: int = 5,
        assignment: Literal["current", "initial"] = "current",
        assignment_steps: int = 20,
        symmetrize: Literal["none", "shifts", "shared-head"] = "none",
        shifts: int | None = None,
        cluster_norms: bool = True,
        cluster_head: bool = True,
        cluster_components: int = 0,
        sharing: Literal["none", "offset"] = "none",
        offset_scale: float = 0.3,
        offset_decay: float = 0.0,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        first_order: bool = False,
        layers: Literal["all", "head", "body"] = "all",
        learn_rates: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            ways=ways,
            inner_rate=inner_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            layers=layers,
            learn_rates=learn_rates,
            tasks_at_once=tasks_at_once,
        )
        check_positive(groups=groups)
        check_positive(assignment_steps=assignment_steps)
        check_not_negative(cluster_components=cluster_components)
        check_positive(offset_scale=offset_scale)
        check_not_negative(offset_decay=offset_decay)
        check_choice("assignment", assignment, ("current", "initial"))
        check_choice("symmetrize", symmetrize, ("none", "shifts", "shared-head"))
        check_choice("sharing", sharing, ("none", "offset"))
        check_shifts(symmetrize, shifts, ways)
        self.groups, self.assignment, self.assignment_steps = groups, assignment, assignment_steps
        self.symmetrize, self.shifts = symmetrize, ways if shifts is None else shifts
        self.learns_all_parameters = groups == 1  # a group that no task is assigned to gets no gradient
        norms = set() if cluster_norms else batch_norm_weights(self.network)
        headless = not cluster_head or symmetrize == "shared-head"
        self.clustered = [
            name for name in self.adapting if name not in norms and not (headless and name.startswith("head."))
        ]
        if not self.clustered:
            raise ConfigError("no weights are left whose distance could be taken; adapt, or cluster, more layers")
        self.initializations: SeparateWeights | CommonAndOffsets
        if sharing == "none":
            self.initializations = SeparateWeights(self.network, groups)
        else:
            self.initializations = CommonAndOffsets(self.network, groups, scale=offset_scale, decay=offset_decay)
        self.network = copy.deepcopy(self.network).requires_grad_(False)  # theta*
        self.centroids = nn.Parameter(self.group_vectors(), requires_grad=False)
        self.cluster_components = cluster_components
        self.register_buffer("axes", torch.randn(cluster_components, self.vector_size))
        for name in ("usage", "unused_for"):
            self.register_buffer(name, torch.zeros(groups, dtype=torch.int64))

    @property
    def vector_size(self) -> int:
        """D, the number of weights whose distance is taken."""
        return self.centroids.shape[1]

    def pretraining_learner(self) -> MAML:
        """A MAML of the same options whose initialisation is theta*, and which shares no weight with this learner."""
        options = {name: self.options[name] for name in inspect.signature(MAML).parameters}
        options["backbone"] = copy.deepcopy(options["backbone"])
        maml = MAML(**options)  # type: ignore[arg-type]  # they are its own
        maml.network.load_state_dict(self.network.state_dict())
        return maml

    @torch.no_grad()
    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Make theta*, and the start of all groups, what a MAML learnt.

        Parameters
        ----------
        weights
            The ``state_dict()`` of the MAML; the one row of a UnicornMAML's head becomes that of every class.

        Raises
        ------
        RuntimeError
            If names or shapes are those of another network.
        """
        network, rates = (_part(weights, prefix) for prefix in ("network.", "rates."))
        for name in ("head.weight", "head.bias"):
            if name in network and len(network[name]) == 1:
                network[name] = network[name].expand(self.ways, *network[name].shape[1:])
        self.network.load_state_dict(network)
        if rates and len(self.rates) > 0:
            self.rates.load_state_dict(rates)
        self.start_groups(torch.zeros_like(self.centroids))

    @torch.no_grad()
    def start_groups(self, centroids: Tensor, *, axes: Tensor | None = None) -> None:
        """Put the initialisations where k-means found the groups.

        Parameters
        ----------
        centroids
            (m, D), which are added to theta*; weights outside of the vector are theta*'s.
        axes
            (k, D), along which distances are taken from now on; None to leave them as they are.
        """
        self.centroids.copy_(centroids)
        if axes is not None:
            self.axes.copy_(axes)
        self.initializations.place(self.network, self.clustered, self.centroids)

    @torch.no_grad()
    def group_vectors(self) -> Tensor:
        """The vectors (m, D) of the current initialisations."""
        starts = [self.initializations.of_group(group) for group in range(self.groups)]
        vectors = [self._vectors({name: weight[None] for name, weight in start.items()}) for start in starts]
        return torch.cat(vectors) - self._vectors(self.initial(1))

    def task_vectors(self, episodes: Episodes) -> Tensor:
        """The vectors (B, D) of the optima of `episodes`, estimated by `assignment_steps` of descent from theta*."""
        if self.symmetrize != "shifts" or self.assignment_steps == 1:  # then the mean gradient is that of one mean loss
            return self._descent(episodes)
        relabelled = cyclic_shifts(episodes, self.shifts)
        size = chunk_size(self, relabelled, tasks_at_once=self.tasks_at_once, usual=self.usual_tasks_at_once)
        with in_chunks(self._descent, relabelled, size) as parts:
            vectors = torch.cat([part for _, part in parts])
        return vectors.unflatten(0, (episodes.tasks, self.shifts)).mean(1)

    def _descent(self, episodes: Episodes) -> Tensor:
        """The vectors (B, D) of where gradient descent leads from theta*."""
        start = self.initial(episodes.tasks)
        if self.symmetrize == "shared-head":
            start = with_equal_rows(start)
        in_one_pass = self.symmetrize == "shifts" and self.assignment_steps == 1

        def losses(weights: Weights, step: int) -> Tensor:
            if not in_one_pass:
                return self.support_losses(episodes, start | weights)
            scores = self.outputs(start | weights, episodes.support)
            return mean_losses_over_shifts(scores, episodes.support_labels, self.shifts)

        with torch.enable_grad():
            moved = gradient_descent(
                losses,
                {name: start[name].detach().requires_grad_() for name in self.adapting},
                rates=self.inner_rate,
                steps=self.assignment_steps,
                exact=False,
            )
        return (self._vectors(moved) - self._vectors(start)).detach()

    def assigned(self, episodes: Episodes) -> Tensor:
        """The group (B,) of each of `episodes`, 0..m-1: whose initialisation is nearest to its estimated optimum."""
        if self.groups == 1:
            return super().assigned(episodes)
        anchors = self.group_vectors() if self.assignment == "current" else self.centroids.detach()
        vectors = self.task_vectors(episodes)
        if self.cluster_components > 0:
            vectors, anchors = vectors @ self.axes.T, anchors @ self.axes.T
        # a product of matrices would lose the small differences between large vectors
        exactly = "donot_use_mm_for_euclid_dist"
        return torch.cdist(vectors, anchors, compute_mode=exactly).argmin(1)

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradients of the groups at hand to ``.grad``; in training, count the tasks since a group's last."""
        before = self.usage.clone()
        measured = super().accumulate_gradients(episodes)
        if self.training:
            self.unused_for.copy_(torch.where(self.usage > before, 0, self.unused_for + episodes.tasks))
        return measured

    def task_objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The loss of the query images, with the penalty of `offset_decay`, and their accuracy."""
        chosen = self._chosen(episodes)
        weights = self.adapted(episodes, self.inner_steps, start=self._starts(chosen))
        loss, correct = self.query_objective(weights, episodes)
        penalty = self.initializations.penalty(chosen)
        return (loss if penalty is None else loss + penalty), correct

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """As those of MAML, with the penalty of `offset_decay`."""
        return self.gradients_of(*self.task_objective(episodes))

    def start(self, episodes: Episodes) -> Weights:
        """The initialisation of each task's group, (B, ...) for each name; training counts the groups' tasks."""
        return self._starts(self._chosen(episodes))

    def _chosen(self, episodes: Episodes) -> list[int]:
        chosen = self.assigned(episodes)
        if self.training:
            with _counting:
                self.usage += nn.functional.one_hot(chosen, self.groups).sum(0)
        return chosen.tolist()

    def _starts(self, chosen: Sequence[int]) -> Weights:
        # made of the groups at hand alone: a gradient of zero, unlike none, would still move an optimiser's state
        starts = {group: self.initializations.of_group(group) for group in sorted(set(chosen))}
        if len(starts) == 1:  # needs no copies, and keeps the memory format of the weights
            return {name: weight.expand(len(chosen), *weight.shape) for name, weight in starts[chosen[0]].items()}
        return {name: torch.stack([starts[group][name] for group in chosen]) for name in starts[chosen[0]]}

    def _vectors(self, weights: Weights) -> Tensor:
        return as_vectors(weights[name] for name in self.clustered)


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
