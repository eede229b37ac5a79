"""Model-agnostic meta-learning (Finn, Abbeel and Levine 2017), its first-order form, and Meta-SGD's learnt rates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_choice, check_positive
from kshot.learners.base import learners, task_losses
from kshot.learners.initialization import InitializationLearner
from kshot.solvers.descent import Rates, Weights, gradient_descent


@learners.register("maml")
class MAML(InitializationLearner):
    """An initialisation from which a few gradient steps on the support set solve a task (Finn et al., Algorithm 2).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            phi_i = theta
            repeat inner_steps times:
                phi_i = phi_i - inner_rate * grad L(phi_i; S_i)             (eq. 1, "adapted" below)
            loss_i = L(phi_i; Q_i)
        theta = outer optimiser's step along  mean over i of  d loss_i / d theta

    L is the mean cross-entropy, or the mean squared error of regression. The derivative of loss_i goes THROUGH the
    inner steps, or takes them as constants with `first_order` (FOMAML).

    Parameters
    ----------
    inner_rate
        Step size on the MEAN cross-entropy. The releases of Finn et al. and Z21 divide by the number of shots only, so
        that their 0.01 is 0.05 here on 5-way tasks and 0.1 on 10-way tasks. The squared errors of regression want less,
        0.01 for sinusoids.
    first_order
        Leave out the derivatives of the inner gradients (FOMAML, Finn et al. section 5.2).
    layers
        Which parameters adapt: "all", the "head" alone (as in ANIL, which is faster), or the "body" alone (BOIL).
    learn_rates
        Learn a rate for every single parameter, from `inner_rate` on (Meta-SGD, Li et al. 2017).

    Attributes
    ----------
    inner_clip
        What learners that build on this one cut entries of the inner gradients to; None for no cut.
    """

    inner_clip: float | None = None

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        first_order: bool = False,
        layers: Literal["all", "head", "body"] = "all",
        learn_rates: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways=ways, inner_steps=inner_steps, test_inner_steps=test_inner_steps, tasks_at_once=tasks_at_once
        )
        check_positive(inner_rate=inner_rate)
        check_choice("layers", layers, ("all", "head", "body"))
        self.inner_rate, self.first_order = inner_rate, first_order
        # if the head alone moves, the body has gradients, but none of gradients
        self.can_compile = first_order or layers == "head"
        names = [name for name, _ in self.network.named_parameters()]
        self.adapting = [name for name in names if layers == "all" or name.startswith("head.") == (layers == "head")]
        self.rates = nn.ParameterList()
        if learn_rates:
            parameters = dict(self.network.named_parameters())
            self.rates.extend(torch.full_like(parameters[name], inner_rate) for name in self.adapting)

    def adapted(self, episodes: Episodes, steps: int, *, start: Weights | None = None) -> Weights:
        """All weights of the network after `steps` on the support set of each task, (B, ...) for each name.

        Parameters
        ----------
        episodes
            The tasks.
        steps
            How many steps of gradient descent.
        start
            Where each task starts from; None for the learner's `start`.
        """
        theta = self.start(episodes) if start is None else start

        def losses(phi: Weights, step: int) -> Tensor:
            return task_losses(self.outputs(theta | phi, episodes.support), episodes.support_labels)

        phi = {name: theta[name] for name in self.adapting}
        exact = self.training and not self.first_order
        rates = self._rates(episodes.tasks)
        return theta | gradient_descent(losses, phi, rates=rates, steps=steps, exact=exact, clip=self.inner_clip)

    def start(self, episodes: Episodes) -> Weights:
        """The weights that each task's descent starts from, (B, ...) for each name.

        Parameters
        ----------
        episodes
            A batch of tasks whose weights are held at the same time.
        """
        return self.initial(episodes.tasks)

    def _rates(self, tasks: int) -> Rates:
        if len(self.rates) == 0:
            return self.inner_rate
        return {name: rate.expand(tasks, *rate.shape) for name, rate in zip(self.adapting, self.rates)}
