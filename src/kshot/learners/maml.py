"""Model-agnostic meta-learning (Finn, Abbeel and Levine 2017), its first-order form, and Meta-SGD's learnt rates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_choice, check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import InitializationLearner
from kshot.solvers.descent import Rates, Weights, gradient_descent


@learners.register("maml")
class MAML(InitializationLearner):
    """An initialisation from which a few gradient steps on the support set solve a task (Finn et al. eq. 1; W21 eq. 1).

    A task's weights are theta after `inner_steps` steps of gradient descent on its support loss, and theta moves along
    the gradient of the query loss THROUGH these steps, or, with `first_order`, as if they were constants (FOMAML).

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways: N, the rows of the head.
    inner_rate: step size on the MEAN cross-entropy. The releases of Finn et al. and Z21 divide by the number of shots
        only, so that their 0.01 is 0.05 here on 5-way tasks and 0.1 on 10-way tasks. The squared errors of regression
        want less, 0.01 for sinusoids.
    inner_steps, test_inner_steps: gradient steps a task in training and in evaluation.
    first_order: leave out the derivatives of the inner gradients (FOMAML, Finn et al. section 5.2).
    layers: which parameters adapt: "all", the "head" alone (as in ANIL, which is faster), or the "body" alone.
    learn_rates: learn a rate for every single parameter, from `inner_rate` on (Meta-SGD, Li et al. 2017).
    """

    inner_clip: float | None = None  # of the inner gradients, for learners that build on this one

    def __init__(
        self,
        backbone: Backbone,
        ways: int = 5,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        first_order: bool = False,
        layers: Literal["all", "head", "body"] = "all",
        learn_rates: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(backbone, ways, inner_steps, test_inner_steps, tasks_at_once)
        check_positive(inner_rate=inner_rate)
        check_choice("layers", layers, ("all", "head", "body"))
        self.inner_rate, self.first_order = inner_rate, first_order
        # where the head alone moves, the body has gradients, but none of gradients
        self.can_compile = first_order or layers == "head"
        names = [name for name, _ in self.network.named_parameters()]
        self.adapting = [name for name in names if layers == "all" or name.startswith("head.") == (layers == "head")]
        self.rates = nn.ParameterList()
        if learn_rates:
            parameters = dict(self.network.named_parameters())
            self.rates.extend(torch.full_like(parameters[name], inner_rate) for name in self.adapting)

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on the support set of each task, (B, ...) for each name."""
        return self.descend(self.start(episodes), episodes, steps)

    def start(self, episodes: Episodes) -> Weights:
        """The weights that each task's descent starts from, (B, ...) for each name."""
        return self.initial(episodes.tasks)

    def descend(self, start: Weights, episodes: Episodes, steps: int) -> Weights:
        """The weights that gradient descent on the support sets reaches from `start`, (B, ...) for each name."""
        exact = self.training and not self.first_order
        moved = gradient_descent(
            lambda weights, step: self.support_losses(episodes, start | weights),
            {name: start[name] for name in self.adapting},
            rates=self._rates(episodes.tasks),
            steps=steps,
            exact=exact,
            clip=self.inner_clip,
        )
        return start | moved

    def _rates(self, tasks: int) -> Rates:
        if len(self.rates) == 0:
            return self.inner_rate
        return {name: rate.expand(tasks, *rate.shape) for name, rate in zip(self.adapting, self.rates)}
