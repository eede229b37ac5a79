"""Lines of W21's Appendix A, in which all layers adapt, and the support vector machine of Table 2.

The learners that adapt all layers have a small smooth network here, without BatchNorm: their inner problems then have a
minimum to which both sides come as near as float64 allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.own_module import backbone as own_backbone
from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.experiments.taxonomy_lines import Comparison, feature_tasks, line
from kshot.learners import IMAML, MAML, MetaOptNet, MinibatchProx
from kshot.learners.initialization import InitializationLearner
from kshot.theory import all_layers, margin
from kshot.theory import last_layer as formula

# of l2 steps that converge to rounding: each step halves the distance to the minimum
_L2, _STEPS, _CG_STEPS = 5.0, 200, 100
_PROXIMAL: dict[str, Any] = {"l2": _L2, "inner_rate": 0.1, "inner_steps": _STEPS}
_C = 0.1


@line("MAML", scores="f(x; phi), all layers", loss="mean cross-entropy", regularizer="5 gradient steps from theta")
def _maml(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MAML(_smooth_backbone(episodes), ways=episodes.ways, inner_rate=0.1, inner_steps=5).double()
    regularizer = formula.EarlyStopping(learner.inner_steps, learner.inner_rate)
    return Comparison(
        learner.meta_loss(episodes), _objective(learner, episodes, regularizer), list(learner.parameters())
    )


@line("iMAML", scores="f(x; phi), all layers", loss="mean cross-entropy", regularizer="5/2 |phi - theta|^2")
def _imaml(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = IMAML(_smooth_backbone(episodes), ways=episodes.ways, cg_steps=_CG_STEPS, **_PROXIMAL).double()
    value = learner.meta_loss(episodes).detach()
    learner.accumulate_gradients(episodes)
    theta = all_layers.initialization(learner.network, episodes.tasks)
    by_formula = _objective(learner, episodes, formula.Penalty(all_layers.proximal(_L2, theta)))
    return Comparison(_with_gradients(value, learner), by_formula, list(learner.parameters()))


@line(
    "Meta-MinibatchProx",
    scores="f(x; phi), all layers",
    loss="mean cross-entropy, R in the outer loss",
    regularizer="5/2 |phi - theta|^2",
)
def _minibatch_prox(episodes: Episodes, backbone: Conv4) -> Comparison:
    whole: dict[str, Any] = {"inner_batch": episodes.support.shape[1], "inner_optimizer": "sgd"}
    learner = MinibatchProx(_smooth_backbone(episodes), ways=episodes.ways, **whole, **_PROXIMAL).double()
    start = learner.initial(episodes.tasks)
    reached = learner.adapted(episodes, _STEPS)
    losses = learner.inner_objective(lambda weights, step: learner.support_losses(episodes, weights), start)
    value = losses(reached, 0).mean().detach()
    learner.accumulate_gradients(episodes)
    penalty = all_layers.proximal(_L2, all_layers.initialization(learner.network, episodes.tasks))
    by_formula = _objective(
        learner,
        episodes.with_images(episodes.support, episodes.support),
        formula.Penalty(penalty),
        outer_loss=lambda scores, _: formula.mean_cross_entropy(scores, episodes.support_labels),
        outer_penalty=penalty,
    )
    return Comparison(_with_gradients(value, learner), by_formula, list(learner.parameters()))


@line(
    "MetaOptNet, SVM",
    scores="w.x",
    loss="0.1 summed hinge",
    regularizer="|w|^2 / 2, with a feature of its own for each support image",
)
def _metaoptnet(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MetaOptNet(backbone, head="svm", c=_C, diagonal_shift=1.0, scale=1.0).double()
    tasks, _ = feature_tasks(episodes, backbone)
    # the release's 1 on the diagonal of the kernel is a feature that each support image has for itself
    count, images = tasks.support.shape[:2]
    own = torch.eye(images, dtype=tasks.support.dtype).expand(count, -1, -1)
    support = torch.cat([tasks.support, own], -1)
    query = torch.cat([tasks.query, own.new_zeros(count, tasks.query.shape[1], images)], -1)
    by_formula = formula.objective(
        tasks.with_images(support, query),
        support.new_zeros(count, tasks.ways, support.shape[-1]),
        scores=formula.linear,
        loss=margin.summed_hinge(_C),
        regularizer=margin.Margin(support, tasks.support_labels, _C),
        outer_loss=formula.mean_cross_entropy,
    )
    return Comparison(learner.meta_loss(episodes), by_formula, list(backbone.parameters()))


def _smooth_backbone(episodes: Episodes) -> Backbone:
    """Means of 4x4 pixels, a linear layer to four features, tanh."""
    channels, side = episodes.support.shape[2], episodes.support.shape[-1]
    layers = [nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels * (side // 4) ** 2, 4), nn.Tanh()]
    return own_backbone(nn.Sequential(*layers), in_channels=channels, image_size=side)


def _objective(
    learner: InitializationLearner,
    episodes: Episodes,
    regularizer: formula.Regularizer,
    *,
    outer_loss: formula.Loss = formula.mean_cross_entropy,
    outer_penalty: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The framework's objective with all layers of the learner's network adapting."""
    return formula.objective(
        episodes,
        all_layers.initialization(learner.network, episodes.tasks),
        scores=all_layers.network_scores(learner.network),
        loss=formula.mean_cross_entropy,
        regularizer=regularizer,
        outer_loss=outer_loss,
        outer_penalty=outer_penalty,
    )


def _with_gradients(value: Tensor, learner: InitializationLearner) -> Tensor:
    """The value as a function whose gradient is the update of the learner, which is not that of a loss it computes."""
    slopes = [
        ((parameter - parameter.detach()) * parameter.grad).sum()
        for parameter in learner.parameters()
        if parameter.grad is not None
    ]
    return value + torch.stack(slopes).sum()
