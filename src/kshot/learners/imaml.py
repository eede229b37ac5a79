"""Meta-learning with implicit gradients (Rajeswaran, Finn, Kakade and Levine 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_not_negative, check_positive
from kshot.learners.base import accuracy, learners, task_losses
from kshot.learners.initialization import Gradients, InitializationLearner, as_vectors, as_weights
from kshot.solvers.conjugate_gradient import conjugate_gradient
from kshot.solvers.descent import Weights, gradient_descent
from kshot.solvers.proximal import proximal


@learners.register("imaml")
class IMAML(InitializationLearner):
    """An initialisation near which tasks find their weights, differentiated without the way there (Rajeswaran et al.).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            phi_i = argmin over phi of  L(phi; S_i) + l2/2 |phi - theta|^2   (eq. 3; inner_steps of gradient descent)
            v_i = grad L(phi_i; Q_i)
            solve (I + H_i / l2) g_i = v_i,  H_i the Hessian of L(.; S_i) at phi_i
                                                                             (Lemma 1; cg_steps of conjugate gradients)
        theta = outer optimiser's step along  mean over i of  g_i

    g_i is the gradient of the query loss in theta, whatever way led to phi_i. It is exact if phi_i is a minimiser and
    the system is solved to the end; the two numbers of steps say how near one comes (Theorem 1).

    Parameters
    ----------
    l2
        Strength of the pull towards the initialisation, next to the MEAN cross-entropy; also in evaluation.
    inner_rate
        Step size on the MEAN cross-entropy plus the l2 term; times `l2` it must be below 2.
    cg_steps
        Products with the Hessian per gradient.
    damping
        Added to the diagonal of I + H/l2, for negative curvature of L that outweighs l2.
    """

    can_compile = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        l2: float = 2.0,
        inner_rate: float = 0.1,
        inner_steps: int = 16,
        test_inner_steps: int = 16,
        cg_steps: int = 5,
        damping: float = 0.0,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways=ways, inner_steps=inner_steps, test_inner_steps=test_inner_steps, tasks_at_once=tasks_at_once
        )
        check_positive(l2=l2)
        check_positive(inner_rate=inner_rate)
        if inner_rate * l2 >= 2:
            raise ConfigError(
                f"inner_rate {inner_rate} times l2 {l2} is at least 2, so gradient steps on the l2 term diverge; "
                f"lower inner_rate below {2 / l2:.3g}"
            )
        check_positive(cg_steps=cg_steps)
        check_not_negative(damping=damping)
        self.l2, self.inner_rate, self.cg_steps, self.damping = l2, inner_rate, cg_steps, damping

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on the proximal problem of each task, (B, ...), detached."""
        start = self.initial(episodes.tasks)
        centre = {name: weight.detach() for name, weight in start.items()}
        losses = proximal(lambda weights, step: self.support_losses(episodes, weights), centre, l2=self.l2)
        weights = gradient_descent(losses, start, rates=self.inner_rate, steps=steps, exact=False)
        return {name: weight.detach() for name, weight in weights.items()}

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """Mean loss and accuracy of these tasks, (2,), and their mean implicit gradient."""
        adapted = self.adapted(episodes, self.inner_steps)
        weights = {name: weight.requires_grad_() for name, weight in adapted.items()}
        scores = self.outputs(weights, episodes.query)
        losses = task_losses(scores, episodes.query_labels)
        direct = torch.autograd.grad(losses.sum(), list(weights.values()))
        implicit = self._implicit(episodes, weights, as_vectors(direct))
        measured = torch.stack([losses.detach().mean(), accuracy(scores.detach(), episodes.query_labels)])
        return measured, self.mean_gradients(implicit)

    def _implicit(self, episodes: Episodes, weights: Weights, direct: Tensor) -> Weights:
        """(I + H/l2)^-1 times each task's gradient (B, P) at its weights, by the weights' names."""
        variables = list(weights.values())
        losses = self.support_losses(episodes, weights)
        slopes = torch.autograd.grad(losses.sum(), variables, create_graph=True)

        def operator(vectors: Tensor) -> Tensor:
            along = list(as_weights(vectors, weights).values())
            products = torch.autograd.grad(slopes, variables, along, retain_graph=True)
            return vectors + as_vectors(products) / self.l2

        return as_weights(conjugate_gradient(operator, direct, steps=self.cg_steps, damping=self.damping), weights)
