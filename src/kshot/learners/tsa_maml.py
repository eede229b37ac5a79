"""Several initialisations, one for each group of similar tasks: TSA-MAML (Zhou et al. 2021, Z21 for short)."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kshot.backbones.registry import Backbone
from kshot.backbones.task_weights import shared_weights
from kshot.data.episodes import Episodes
from kshot.errors import check_choice, check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import Classifier, as_vectors
from kshot.learners.maml import MAML
from kshot.solvers.descent import Weights, gradient_descent

_counting = threading.Lock()  # tasks may choose their groups side by side
_APART = 0.01  # of a weight's size: how far groups start from each other before k-means has placed them


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

    The vector of a task or of an initialisation, (D,), holds the weights that adapt, less those that `cluster_norms`
    leaves out, as differences from theta*. What is kept and not learnt, theta* among it, are parameters without a
    gradient.

    Parameters
    ----------
    groups
        m, the number of initialisations (Z21: 5, and 3 for tasks of three domains).
    assignment
        The nearest of the "current" initialisations (Z21's Algorithm 1), or of the "initial" ones, as k-means found
        them (Z21's release).
    assignment_steps
        Gradient steps from theta* to the estimated optimum, with `inner_rate`.
    cluster_norms
        Count scale and shift of BatchNorm among the weights whose distance is taken; the release does not.

    Attributes
    ----------
    usage
        (m,) the training tasks of each group so far.
    unused_for
        (m,) the training tasks of the steps since the last one with a task of the group.
    """

    usage: Tensor
    unused_for: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        groups: int = 5,
        assignment: Literal["current", "initial"] = "current",
        assignment_steps: int = 20,
        cluster_norms: bool = True,
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
        check_choice("assignment", assignment, ("current", "initial"))
        self.groups, self.assignment, self.assignment_steps = groups, assignment, assignment_steps
        self.learns_all_parameters = groups == 1  # a group that no task is assigned to gets no gradient
        norms = set() if cluster_norms else _batch_norm_weights(self.network)
        self.clustered = [name for name in self.adapting if name not in norms]
        self.initializations = nn.ModuleList([self.network, *(_neighbour(self.network) for _ in range(groups - 1))])
        self.network = copy.deepcopy(self.network).requires_grad_(False)  # theta*
        self.centroids = nn.Parameter(self.group_vectors(), requires_grad=False)
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

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Make theta*, and the start of all groups, what a MAML learnt.

        Parameters
        ----------
        weights
            The ``state_dict()`` of the MAML.

        Raises
        ------
        RuntimeError
            If names or shapes are those of another network.
        """
        network, rates = (_part(weights, prefix) for prefix in ("network.", "rates."))
        for part in (self.network, *self.initializations):
            part.load_state_dict(network)
        if rates and len(self.rates) > 0:
            self.rates.load_state_dict(rates)
        self.centroids.data.zero_()

    @torch.no_grad()
    def start_groups(self, centroids: Tensor) -> None:
        """Put the initialisations at theta* plus `centroids` (m, D); weights outside of the vector are theta*'s."""
        self.centroids.copy_(centroids)
        common = dict(self.network.named_parameters())
        sizes = [common[name].numel() for name in self.clustered]
        for centroid, initialization in zip(self.centroids, self.initializations):
            initialization.load_state_dict(self.network.state_dict())
            weights = dict(initialization.named_parameters())
            for name, part in zip(self.clustered, centroid.split(sizes)):
                weights[name].add_(part.view_as(weights[name]))

    @torch.no_grad()
    def group_vectors(self) -> Tensor:
        """The vectors (m, D) of the current initialisations."""
        common = self._vectors(self.initial(1))
        starts = [{name: value[None] for name, value in part.named_parameters()} for part in self.initializations]
        return torch.cat([self._vectors(weights) for weights in starts]) - common

    def task_vectors(self, episodes: Episodes) -> Tensor:
        """The vectors (B, D) of the tasks' estimated optima: `assignment_steps` of gradient descent from theta*."""
        start = self.initial(episodes.tasks)
        with torch.enable_grad():
            moved = gradient_descent(
                lambda weights, step: self.support_losses(episodes, start | weights),
                {name: start[name].detach().requires_grad_() for name in self.adapting},
                rates=self.inner_rate,
                steps=self.assignment_steps,
                exact=False,
            )
        return (self._vectors(moved) - self._vectors(start)).detach()

    def assigned(self, episodes: Episodes) -> Tensor:
        """The group (B,) of each task, 0..m-1: whose initialisation is nearest to the task's estimated optimum."""
        if self.groups == 1:
            return torch.zeros_like(episodes.classes[:, 0])
        anchors = self.group_vectors() if self.assignment == "current" else self.centroids.detach()
        # a product of matrices would lose the small differences between large vectors
        exactly = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self.task_vectors(episodes), anchors, compute_mode=exactly).argmin(1)

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradients of the groups at hand to ``.grad``; in training, count the tasks since a group's last."""
        before = self.usage.clone()
        measured = super().accumulate_gradients(episodes)
        if self.training:
            self.unused_for.copy_(torch.where(self.usage > before, 0, self.unused_for + episodes.tasks))
        return measured

    def start(self, episodes: Episodes) -> Weights:
        """The initialisation of each task's group, (B, ...) for each name; training counts the groups' tasks."""
        chosen = self.assigned(episodes)
        if self.training:
            with _counting:
                self.usage += nn.functional.one_hot(chosen, self.groups).sum(0)
        places = chosen.tolist()
        if len(set(places)) == 1:  # needs no copies, and keeps the memory format of the weights
            return shared_weights(self.initializations[places[0]], len(places))
        starts = [dict(part.named_parameters()) for part in self.initializations]
        # stacked from the groups at hand alone: a gradient of zero, unlike none, would still move an optimiser's state
        return {name: torch.stack([starts[place][name] for place in places]) for name in starts[0]}

    def _vectors(self, weights: Weights) -> Tensor:
        return as_vectors(weights[name] for name in self.clustered)


def _part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _batch_norm_weights(network: nn.Module) -> set[str]:
    return {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }


@torch.no_grad()
def _neighbour(network: Classifier) -> Classifier:
    """A copy, each weight a little off at random: initialisations in one place would all be nearest, or none."""
    other = copy.deepcopy(network)
    for weight in other.parameters():
        weight.add_(_APART * weight.square().mean().sqrt() * torch.randn_like(weight))
    return other
