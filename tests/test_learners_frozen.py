"""MTL and supervised pretraining: options, the first weights and ramps; their formulas: tests/independent."""

from __future__ import annotations

import copy

import numpy as np
import torch
from learner_toys import build, normalised
from torch import nn

from kshot.backbones import Conv4, ResNet12
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.learners import MultiTask, Supervised


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


def test_a_supervised_step_is_one_pass_of_the_ramp_of_dropblock(toy_data):
    torch.manual_seed(0)
    learner = Supervised(ResNet12(widths=(2, 2, 2, 2), in_channels=1, image_size=16), num_classes=12).train()
    sampler = learner.sampler(toy_data.train, TaskShape(), seed=0)
    for step in range(3):
        learner.meta_loss(normalised(sampler.episodes(np.arange(8 * step, 8 * step + 8)), toy_data.train))
    counters = [value for name, value in learner.state_dict().items() if name.endswith("training_tasks")]
    assert {int(counter) for counter in counters} == {3}
