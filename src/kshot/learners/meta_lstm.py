"""A learnt optimiser: an LSTM whose cell state is the weights of the task's network (Ravi and Larochelle 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import InitializationLearner, as_vectors, as_weights
from kshot.solvers.descent import Weights, check_losses

_P = 10.0  # numbers below e^-10 are given by their value, larger ones by their logarithm
_FORGET = 5.0  # the forget gate starts at sigmoid(5) = 0.993: weights are kept
_SPREAD = 0.01  # of the first weights of both layers


@learners.register("meta-lstm")
class MetaLSTM(InitializationLearner):
    """Gates that an LSTM learns take the place of gradient descent's rate and decay (Ravi and Larochelle 2017).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            repeat inner_steps times, for every coordinate of theta_i by itself (theta_0 is learnt):
                g = grad L(theta_i; S_i)
                h = LSTM(g, L)                                               (hidden units)
                f, i = sigmoid(W [h, theta_i, previous gate] + b)            (section 3.1)
                theta_i = f * theta_i - i * g                                (eq. 2: the cell state)
            loss_i = L(theta_i; Q_i)
        theta_0, LSTM, W, b = outer optimiser's step along the gradient of  mean over i of  loss_i

    All coordinates share the weights of the LSTM and have hidden states of their own. Gradients and losses of the inner
    steps count as constants (section 3.3), while theta itself is differentiated, also as an input of the gates.

    What the paper leaves open is decided so: a step looks at the whole support set, as the paper's 5-way experiments
    do; the gates before the first step are zero; the bias of the forget gate starts at 5 and that of the input gate at
    the logit of `inner_rate`, all other weights uniformly within 0.01 of zero. BatchNorm takes the statistics of the
    images at hand, as in the other learners that adapt weights; the paper collects running ones within a task.
    Gradients are those of the mean loss; the release divides them by the number of images once more.

    Parameters
    ----------
    hidden
        Units of the first layer.
    inner_rate
        Where the input gate starts, as a step size on the MEAN loss.
    inner_steps
        Steps per task in training, for which the gates are learnt.
    test_inner_steps
        Steps per task in evaluation.
    """

    meta_batch = 1

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        hidden: int = 20,
        inner_rate: float = 0.01,
        inner_steps: int = 8,
        test_inner_steps: int = 8,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways=ways, inner_steps=inner_steps, test_inner_steps=test_inner_steps, tasks_at_once=tasks_at_once
        )
        check_positive(hidden=hidden)
        if not 0 < inner_rate < 1:
            raise ConfigError(f"inner_rate is {inner_rate}, but a gate lies above 0 and below 1")
        self.cell = nn.LSTMCell(4, hidden)
        # rows: the gates f and i; columns: the first layer, theta, and the gate before
        self.gate_weight = nn.Parameter(torch.empty(2, hidden + 2))
        self.gate_bias = nn.Parameter(torch.tensor([_FORGET, math.log(inner_rate / (1 - inner_rate))]))
        for weight in (*self.cell.parameters(), self.gate_weight):
            nn.init.uniform_(weight, -_SPREAD, _SPREAD)

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on the support set of each task, (B, ...) for each name."""
        initial = self.initial(episodes.tasks)
        theta = as_vectors(initial.values())
        state = theta.new_zeros(2, theta.numel(), self.cell.hidden_size)
        gates = theta.new_zeros(*theta.shape, 2)
        seen = []
        for _ in range(steps):
            losses, gradient = self._gradient(theta, initial, episodes)
            seen.append(losses)
            with torch.set_grad_enabled(self.training):
                state, gates = self._gates(losses, gradient, theta, state, gates)
                forget, admit = gates.unbind(-1)
                theta = forget * theta - admit * gradient  # eq. 2, with the gradient's negative as the candidate
        check_losses(seen)
        return as_weights(theta, initial)

    def _gradient(self, theta: Tensor, like: Weights, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The support losses (B,) at theta (B, P) and their gradients (B, P), without a graph."""
        theta = theta.detach().requires_grad_()
        losses = self.support_losses(episodes, as_weights(theta, like))
        (gradient,) = torch.autograd.grad(losses.sum(), theta)
        return losses.detach(), gradient

    def _gates(
        self, losses: Tensor, gradient: Tensor, theta: Tensor, state: Tensor, gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state of the first layer (2, B*P, hidden) after this step, and the gates f and i of theta, (B, P, 2).

        A gate is sigmoid(W [first layer, theta_{t-1}, gate_{t-1}] + b): the equations of i_t and f_t in section 3.1.
        """
        of_loss = preprocess(losses).unsqueeze(1).expand(*theta.shape, 2)
        state = torch.stack(self.cell(torch.cat([preprocess(gradient), of_loss], -1).flatten(0, 1), tuple(state)))
        of_hidden, of_theta, of_gate = self.gate_weight.split([self.cell.hidden_size, 1, 1], dim=1)
        logits = (state[0] @ of_hidden.mT).view_as(gates) + theta.unsqueeze(-1) * of_theta[:, 0] + gates * of_gate[:, 0]
        return state, (logits + self.gate_bias).sigmoid()


def preprocess(values: Tensor) -> Tensor:
    """Size and sign (..., 2) of numbers (...) over many orders of magnitude (Andrychowicz et al. 2016, appendix A).

    (log|x| / p, sign x) if |x| >= e^-p, otherwise (-1, e^p x), with p = 10.
    """
    size = values.abs()
    large = size >= math.exp(-_P)
    logarithm = size.clamp_min(math.exp(-_P)).log() / _P
    return torch.stack([logarithm, torch.where(large, values.sign(), values * math.exp(_P))], -1)
