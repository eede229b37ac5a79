"""Almost no inner loop (Raghu, Raghu, Bengio and Vinyals 2020)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kshot.backbones.registry import Backbone
from kshot.backbones.task_weights import shared_weights
from kshot.data.episodes import Episodes
from kshot.errors import check_positive
from kshot.learners.base import learners, task_losses
from kshot.learners.initialization import InitializationLearner
from kshot.solvers.descent import Weights, gradient_descent


@learners.register("anil")
class ANIL(InitializationLearner):
    """MAML whose inner loop adapts the head alone, so that one pass gives the features of all steps (W21 eqs. 3-4).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            w_i = w                                                          (the head; theta is the body)
            repeat inner_steps times:
                w_i = w_i - inner_rate * grad_w L(w_i, theta; S_i)           (InnerLoop, W21 eq. 4)
            loss_i = L(w_i, theta; Q_i)
        w, theta = outer optimiser's step along  mean over i of  d loss_i / d (w, theta)    (W21 eq. 3)

    The body takes part in the outer update only, with the exact gradient through all inner steps. The same inner loop
    learns a test task (W21 eqs. 8-9).

    Parameters
    ----------
    inner_rate
        Step size on the MEAN cross-entropy.
    frozen_head
        Leave the head that tasks start from as it was drawn: the outer update moves the body alone (W21 eq. 5).
    split
        Tell support from query in training. False: S_i and Q_i are both all images of task i (W21 section 3.3, which
        compares ANIL with MTL in this form). A test task is learnt from its support set either way.
    tasks_at_once
        Tasks that go through the body together, which bounds the memory; None for 16. It changes rounding only; a
        network that drops values takes one task after the other in training.
    """

    meta_batch = 16
    usual_tasks_at_once = 16  # which share a pass through the body; its maps grow with their number

    def __init__(
        self,
        backbone: Backbone,
        *,
        ways: int = 5,
        inner_rate: float = 0.1,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        frozen_head: bool = False,
        split: bool = True,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways=ways, inner_steps=inner_steps, test_inner_steps=test_inner_steps, tasks_at_once=tasks_at_once
        )
        check_positive(inner_rate=inner_rate)
        self.inner_rate = inner_rate
        self.tells_support_from_query = self.needs_queries = split
        self.network.head.requires_grad_(not frozen_head)

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """As for every learner; without a split, the images of a task are its support set and its query set."""
        return super().objective(self._tasks_of_training(episodes))

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """As for every learner; without a split, the images of a task are its support set and its query set."""
        return super().accumulate_gradients(self._tasks_of_training(episodes))

    def _tasks_of_training(self, episodes: Episodes) -> Episodes:
        if self.tells_support_from_query:
            return episodes
        images, labels = episodes.images(), episodes.labels()
        return replace(episodes, support=images, support_labels=labels, query=images, query_labels=labels)

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """The head's weight (B, N, D) and bias (B, N) after `steps` on the support features of each task."""
        features = self.features(episodes.support)
        return gradient_descent(
            lambda head, step: task_losses(_linear(head, features), episodes.support_labels),
            self.initial(episodes.tasks),
            rates=self.inner_rate,
            steps=steps,
            exact=self.training,
        )

    def initial(self, tasks: int) -> Weights:
        """The head's initialisation, the same for each of B tasks."""
        head = shared_weights(self.network.head, tasks)
        # the inner loop differentiates by the head even if the outer one leaves it alone
        return {name: weight.requires_grad_() for name, weight in head.items()}

    def outputs(self, weights: Weights, images: Tensor, *, parts: int = 1) -> Tensor:
        """Scores (B, M, N) of images (B, M, ...) by each task's head, its weights, on the common body."""
        return _linear(weights, self.features(images, parts))


def _linear(head: Weights, features: Tensor) -> Tensor:
    return features @ head["weight"].mT + head["bias"].unsqueeze(1)
