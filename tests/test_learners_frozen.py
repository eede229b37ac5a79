"""What is particular to learners of features whose heads are plain: MTL, supervised pretraining and ProtoNet."""

from __future__ import annotations

import copy

import numpy as np
import torch
from learner_toys import build, normalised
from torch import nn

from kshot.backbones import Conv4, ResNet12, batch_of_tasks
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.learners import MultiTask, Supervised


def test_mtl_scores_a_task_by_the_rows_of_its_classes(toy_data):
    learner = build("mtl").double()
    episodes = normalised(
        EpisodeSampler(toy_data.train, TaskShape(3, 2, 2), seed=0).episodes(np.arange(2)), toy_data.train, torch.float64
    )
    scores, labels = learner.training_scores(episodes)
    for task in range(2):
        images = torch.cat([episodes.support[task], episodes.query[task]])
        features = nn.functional.normalize(learner.backbone(images), dim=-1)
        expected = torch.stack([features @ learner.weight[row] for row in episodes.classes[task]], 1)
        torch.testing.assert_close(scores[task], expected)
    assert labels.tolist()[0] == [0, 0, 1, 1, 2, 2] * 2, "labels are positions in the task: nothing is merged"


def test_mtl_options_change_what_they_say(toy_data):
    episodes = normalised(
        EpisodeSampler(toy_data.train, TaskShape(3, 2, 2), seed=0).episodes(np.arange(2)), toy_data.train
    )
    plain = build("mtl", normalize_features=False).training_scores(episodes)[0]
    assert plain.abs().max() > build("mtl").training_scores(episodes)[0].abs().max()
    joint = build("mtl", normalize_over="batch")
    images = episodes.images().flatten(0, 1)
    features = nn.functional.normalize(copy.deepcopy(joint).backbone(images), dim=-1).unflatten(0, (2, -1))
    torch.testing.assert_close(joint.training_scores(episodes)[0], features @ joint.weight[episodes.classes].mT)


def test_mtl_weights_start_at_the_scale_of_the_paper():
    learner = MultiTask(Conv4(64), num_classes=64, ways=4)
    bound = (1 / 256) ** 0.5 * (64 / 4) ** 0.5
    assert 0.98 * bound < learner.weight.abs().max() <= bound


def test_supervised_loss_is_cross_entropy_over_all_classes(toy_data):
    learner = build("supervised").double()
    batch = normalised(
        learner.sampler(toy_data.train, TaskShape(), 0).episodes(np.arange(20)), toy_data.train, torch.float64
    )
    scores = learner.classifier(copy.deepcopy(learner).backbone(batch.support[:, 0]))
    expected = nn.functional.cross_entropy(scores, batch.support_labels[:, 0])
    torch.testing.assert_close(learner.meta_loss(batch), expected)
    assert isinstance(learner, Supervised)
    assert learner.tasks_per_epoch(toy_data.train) == 12 * 24


def test_a_supervised_step_is_one_pass_of_the_ramp_of_dropblock(toy_data):
    torch.manual_seed(0)
    learner = Supervised(ResNet12(widths=(2, 2, 2, 2), in_channels=1, image_size=16), num_classes=12).train()
    sampler = learner.sampler(toy_data.train, TaskShape(), seed=0)
    for step in range(3):
        learner.meta_loss(normalised(sampler.episodes(np.arange(8 * step, 8 * step + 8)), toy_data.train))
    counters = [value for name, value in learner.state_dict().items() if name.endswith("training_tasks")]
    assert {int(counter) for counter in counters} == {3}


def test_protonet_scores_by_squared_distance(toy_data):
    learner = build("protonet").double()
    sampler = EpisodeSampler(toy_data.test, TaskShape(3, 3, 5), seed=0)
    episodes = normalised(sampler.episodes(np.arange(6)), toy_data.test, torch.float64)
    with batch_of_tasks(episodes.tasks):
        images = episodes.images()
        features = copy.deepcopy(learner).backbone(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    support, query = features[:, :9], features[:, 9:]
    prototypes = torch.stack([support[:, 3 * way : 3 * way + 3].mean(1) for way in range(3)], 1)
    squared = torch.cdist(query, prototypes) ** 2
    expected = (-squared).log_softmax(-1)
    torch.testing.assert_close(learner.training_scores(episodes)[0].log_softmax(-1), expected)
