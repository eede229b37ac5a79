"""SimpleShot (Wang et al. 2019): the nearest class mean of features that are centred and of unit length (CL2N).

Training is that of `supervised`, whose file of this folder holds it.
"""

from __future__ import annotations

import torch
from plain import CLASSES, WAYS, build, close, draw_tasks, features, weights_of

from kshot.learners import SimpleShot, Supervised


def test_training_is_supervised() -> None:
    assert issubclass(SimpleShot, Supervised)
    changed = set(vars(SimpleShot)) & {"training_scores", "loss", "objective", "accumulate_gradients"}
    assert not changed, f"{changed} have to be compared here"


def test_a_query_is_of_the_class_with_the_nearest_mean_of_centred_features() -> None:
    learner, tasks = build(SimpleShot, num_classes=CLASSES).eval(), draw_tasks()
    weights = weights_of(learner)
    training_images = draw_tasks(seed=1).support.flatten(0, 1)
    mean = features(weights, training_images, running=True).mean(0)
    learner.mean.copy_(mean.detach())
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) - mean for part in (tasks.support, tasks.query))
        support, query = support / support.norm(dim=1, keepdim=True), query / query.norm(dim=1, keepdim=True)
        centroids = [support[tasks.support_labels[task] == way].mean(0) for way in range(WAYS)]
        squared = torch.stack([(query - centroid).square().sum(1) for centroid in centroids], 1)
        close(actual.softmax(1), (-squared).softmax(1), f"task {task}")
        assert (actual.argmax(1) == squared.argmin(1)).all()
