"""Gradient descent on a new random head: W21's equations 6 and 7, and the kernel predictor that they lead to."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from kshot.errors import ConfigError, DivergenceError
from kshot.solvers import GradientDescent
from kshot.theory.infinite_width import kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import adapt_head


def half_squared_error(scores, labels):
    return (scores - one_hot(labels, 3)).square().sum(1).mean() / 2


@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize(("loss", "of"), [("cross-entropy", cross_entropy), ("squared-error", half_squared_error)])
def test_the_head_is_that_of_a_plain_loop(loss, of, steps):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2], [2, 1, 0, 2, 1, 0, 0, 0]])
    with torch.inference_mode():
        head = GradientDescent(steps=steps, rate=0.3, loss=loss, seed=4).head(features, labels, 3)
    start = GradientDescent(steps=0, seed=4).head(features, labels, 3).weight
    for task in range(2):
        weight = start[task].clone().requires_grad_()
        optimizer = torch.optim.SGD([weight], lr=0.3)
        for _ in range(steps):
            optimizer.zero_grad()
            of(features[task] @ weight.T, labels[task]).backward()
            optimizer.step()
        torch.testing.assert_close(head.weight[task], weight.detach(), rtol=0, atol=1e-13)
    assert head.bias.abs().max() == 0


def test_the_start_is_that_of_a_linear_layer():
    features, labels = torch.ones(3, 2, 400), torch.tensor([[0, 1]] * 3)
    heads = [GradientDescent(steps=0, seed=seed).head(features, labels, 2).weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0][0], heads[0][1])
    assert not torch.equal(heads[0], heads[2])
    assert 0.049 < float(heads[0].abs().max()) <= 0.05
    assert float(heads[0].std()) == pytest.approx(0.05 / 3**0.5, rel=0.1)


def test_wide_networks_lead_to_the_kernel_predictor():
    """The distance to `adapt_head` falls like one over the root of the width, from time 0.3 to late ones."""
    generator = torch.Generator().manual_seed(1)
    support, query = (torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in (6, 9))
    labels = torch.tensor([[0, 0, 1, 1, 2, 2]])
    for time, steps in ((0.3, 200), (3.0, 1000)):
        wanted = adapt_head(
            lambda a, b: kernels(a, b, depth=3),
            query=query,
            support=support,
            targets=one_hot(labels[0]).double(),
            time=time,
        ).values
        errors = []
        for width in (32, 512, 2048):
            found = []
            for seed in range(4):
                network = ReLUNetwork(4, width=width, depth=3, seed=seed)
                adaptation = GradientDescent(steps=steps, rate=time * 6 / steps, loss="squared-error", seed=seed)
                with torch.no_grad():
                    head = adaptation.head(network.features(support)[None], labels, 3)
                    scores = head.scores(network.features(query)[None])[0]
                found.append(float((scores - wanted).norm() / wanted.norm()))
            errors.append(sum(found) / len(found))
        assert errors[1] < errors[0] / 2.5  # 1 / 4 is expected
        assert errors[2] < errors[1] / 1.4  # 1 / 2 is expected
        assert errors[2] < 0.1, errors


def test_steps_that_diverge_name_the_task():
    features = torch.ones(2, 2, 3)
    features[1] = 1e9
    labels = torch.tensor([[0, 1], [0, 1]])
    with pytest.raises(DivergenceError, match=r"diverged at rate 1\.0; lower the rate") as caught:
        GradientDescent(loss="squared-error").head(features, labels, 2)
    assert caught.value.task == 1


@pytest.mark.parametrize("options", [{"steps": -1}, {"rate": 0.0}, {"loss": "hinge"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        GradientDescent(**options)
