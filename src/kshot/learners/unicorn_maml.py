"""MAML whose head starts the same for every class (Ye and Chao 2022)."""

from __future__ import annotations

from typing import ClassVar

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.learners.base import Learner, learners
from kshot.learners.maml import MAML
from kshot.solvers.descent import Weights


@learners.register("unicorn-maml")
class UnicornMAML(MAML):
    """MAML with one head vector w that is learnt and copied to all N classes (Ye and Chao, ICLR 2022, section 5).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            phi_i = (theta, w_1, ..., w_N)  with  w_1 = ... = w_N = w           (one vector for every class)
            repeat inner_steps times:
                phi_i = phi_i - inner_rate * grad L(phi_i; S_i)                 (MAML's inner loop, on all weights)
            loss_i = L(phi_i; Q_i)
        theta, w = outer optimiser's step along  mean over i of  d loss_i / d (theta, w)    (w: sum over its copies)

    No class has a row of its own, so that scores follow a permutation of the labels and a task may have any number of
    classes. The paper trains from a pretrained body, with 5 to 20 inner steps.

    A softmax does not change if the same vector is added to every w_c. So w moves neither scores nor gradients: its own
    gradient is zero, in the inner loop as in the outer one, and any w gives what w = 0 gives. What sets the learner
    apart from MAML is that all rows are equal.
    """

    follows_label_permutations = True
    parameters_without_effect: ClassVar[tuple[str, ...]] = ("network.head.weight", "network.head.bias")

    def __init__(
        self,
        backbone: Backbone,
        *,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        first_order: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            ways=1,  # rows of the head
            inner_rate=inner_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            tasks_at_once=tasks_at_once,
        )

    def start(self, episodes: Episodes) -> Weights:
        """The initialisation, (B, ...) for each name, with a copy of the head's row for each class."""
        theta = self.initial(episodes.tasks)
        weight, bias = theta["head.weight"], theta["head.bias"]
        copies = {"head.weight": weight.expand(-1, episodes.ways, -1), "head.bias": bias.expand(-1, episodes.ways)}
        return theta | copies

    @property
    def bound_ways(self) -> int | None:
        """None: a head for any number of classes."""
        return None

    def check_ways(self, ways: int) -> None:
        """ConfigError for tasks of a single class, such as those of regression."""
        Learner.check_ways(self, ways)
