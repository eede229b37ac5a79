"""HSML and MMAML, whose inner loop starts from what an encoder makes of the task, against their formulas and MAML."""

from __future__ import annotations

import pytest
import torch
from gradient_toys import check_equals_maml, check_finite_differences, draw_tasks, features, smooth
from torch import Tensor, nn

from kshot.errors import ConfigError
from kshot.learners import HSML, MAML, MMAML, InitializationLearner
from kshot.learners.hsml import ClusterLevel
from kshot.learners.task_encoders import ExampleEncoder, RecurrentAutoEncoder

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])


@pytest.mark.parametrize("training", [True, False])
def test_examples_are_encoded_by_image_and_label_under_the_statistics_of_their_task(training: bool) -> None:
    episodes, maml = draw_tasks(), smooth(MAML)
    encoder = ExampleEncoder(maml.backbone, 3, 5).double().train(training)
    weights = {f"network.backbone.{name}": value for name, value in encoder.backbone.named_parameters()}
    for task, codes in enumerate(encoder(episodes)):
        one_hot = torch.eye(3).double()[episodes.support_labels[task]]
        inputs = torch.cat([features(weights, episodes.support[task]), one_hot], 1)
        torch.testing.assert_close(codes, (inputs @ encoder.layer.weight.T + encoder.layer.bias).clamp_min(0))
    assert all(own is not common for own, common in zip(encoder.backbone.parameters(), maml.backbone.parameters()))


# HSML


@AT_ONCE
@pytest.mark.parametrize("first_order", [False, True])
def test_hsml_with_one_leaf_and_an_open_gate_is_maml(first_order: bool, at_once: int) -> None:
    options = {"inner_rate": 0.3, "inner_steps": 3, "first_order": first_order, "tasks_at_once": at_once}
    learner = smooth(HSML, hidden=4, clusters=(1,), **options)
    with torch.no_grad():
        learner.gate.weight.zero_()
        learner.gate.bias.fill_(50.0)  # whose sigmoid is 1 in float64
    check_equals_maml(learner, smooth(MAML, **options))


@AT_ONCE
def test_hsml_equals_finite_differences(at_once: int) -> None:
    options = {"hidden": 4, "sigma": 1.0, "reconstruction_weight": 0.5, "inner_rate": 0.3, "inner_steps": 2}
    learner, episodes = smooth(HSML, tasks_at_once=at_once, **options), draw_tasks()
    measured = learner.accumulate_gradients(episodes)
    torch.testing.assert_close(measured["loss"], learner.meta_loss(episodes).detach())
    assert all(parameter.grad.any() for parameter in learner.parameters())
    # the layer with ReLU has kinks, which the small step keeps clear of
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach(), step=1e-6, rtol=1e-5)


def test_hsml_starts_from_weights_times_gates_of_the_task() -> None:
    learner, episodes = smooth(HSML, hidden=4, sigma=0.3, reconstruction_weight=0.5), draw_tasks()
    start = learner.start(episodes)
    embedding, errors = learner.auto_encoder(learner.examples(episodes))
    for task in range(episodes.tasks):
        states = embedding[task : task + 1]
        for level, sigma in zip(learner.tree, (0.3, 1, 1), strict=True):  # 1 above the leaves
            states = plain_level(level, states, sigma)
        gates = torch.sigmoid(learner.gate.weight @ torch.cat([embedding[task], states[0]]) + learner.gate.bias)
        expected = gates * nn.utils.parameters_to_vector(learner.network.parameters())
        torch.testing.assert_close(torch.cat([weight[task].flatten() for weight in start.values()]), expected)
    plain, _ = InitializationLearner.task_objective(learner, episodes)
    torch.testing.assert_close(learner.meta_loss(episodes), plain + 0.5 * errors.mean())


def plain_level(level: ClusterLevel, states: Tensor, sigma: float) -> Tensor:
    """States (clusters, H) from states (K, H), one pair after the other."""
    count = len(level.weight)
    result = torch.zeros(count, states.shape[1], dtype=states.dtype)
    for state in states:
        shares = torch.ones(1, dtype=states.dtype)
        if level.centres is not None:
            kernel = torch.stack([(-(((state - centre) / sigma).norm() ** 2) / 2).exp() for centre in level.centres])
            shares = kernel / kernel.sum()
        result = result + torch.stack(
            [shares[place] * torch.tanh(level.weight[place] @ state + level.bias[place]) for place in range(count)]
        )
    return result


@pytest.mark.parametrize(("below", "clusters"), [(1, 4), (4, 2), (2, 1), (1, 1)])
def test_states_flow_into_clusters_by_their_distance(below: int, clusters: int) -> None:
    torch.manual_seed(0)
    level, states = ClusterLevel(clusters, 5, sigma=1.5).double(), torch.randn(3, below, 5).double()
    torch.testing.assert_close(level(states), torch.stack([plain_level(level, each, 1.5) for each in states]))


def test_recurrent_auto_encoder_recovers_codes_in_reverse() -> None:
    torch.manual_seed(0)
    model, codes = RecurrentAutoEncoder(3, 4).double(), torch.randn(2, 5, 3).double()
    embeddings, errors = model(codes)
    for task in range(2):
        states, state = [], torch.zeros(1, 4).double()
        for code in codes[task]:
            state = plain_gru(model.encoder, code, state)
            states.append(state)
        torch.testing.assert_close(embeddings[task], torch.cat(states).mean(0))
        squares = []
        for code in reversed(list(codes[task])):
            state = plain_gru(model.decoder, torch.ones(1).double(), state)
            squares.append((model.output(state)[0] - code) ** 2)
        torch.testing.assert_close(errors[task], torch.stack(squares).mean())


def plain_gru(layer: nn.GRU, inputs: Tensor, state: Tensor) -> Tensor:
    """One step of a GRU by torch's cell."""
    cell = nn.GRUCell(layer.input_size, layer.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    return cell(inputs[None], state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"clusters": ()}, "end in the root"),
        ({"clusters": (4, 2)}, "end in the root"),
        ({"clusters": (4, 0, 1)}, "end in the root"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight is -1.0"),
    ],
)
def test_hsml_refuses_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(HSML, **options)


# MMAML


@AT_ONCE
@pytest.mark.parametrize("first_order", [False, True])
def test_mmaml_with_film_at_identity_is_maml(first_order: bool, at_once: int) -> None:
    options = {"inner_rate": 0.3, "inner_steps": 3, "test_inner_steps": 5, "first_order": first_order}
    learner = smooth(MMAML, embedding_size=4, tasks_at_once=at_once, **options)
    with torch.no_grad():
        for parameter in learner.modulation.parameters():
            parameter.zero_()
    check_equals_maml(learner, smooth(MAML, tasks_at_once=at_once, **options))


@AT_ONCE
def test_mmaml_equals_finite_differences(at_once: int) -> None:
    learner = smooth(MMAML, embedding_size=4, inner_rate=0.3, inner_steps=2, tasks_at_once=at_once)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    assert all(parameter.grad.any() for parameter in learner.parameters())
    # the layer with ReLU has kinks, which the small step keeps clear of
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach(), step=1e-6, rtol=1e-5)


@AT_ONCE
def test_mmaml_scales_and_shifts_maps_by_the_mean_code_of_the_examples(at_once: int) -> None:
    """After a normalisation, FiLM is another scale and shift of it."""
    options = {"inner_steps": 0, "test_inner_steps": 0, "tasks_at_once": at_once}
    learner, episodes = smooth(MMAML, embedding_size=4, **options).eval(), draw_tasks()
    scores = learner.scores(episodes)
    codes = learner.examples(episodes)
    for task in range(episodes.tasks):
        maml = smooth(MAML, **options).eval()
        maml.network.load_state_dict(learner.network.state_dict())
        norms = (maml.backbone.first_norm, maml.backbone.second_norm)
        with torch.no_grad():
            for norm, layer in zip(norms, learner.modulation):
                scale, shift = (layer.weight @ codes[task].mean(0) + layer.bias).chunk(2)
                norm.weight.mul_(1 + scale)
                norm.bias.mul_(1 + scale).add_(shift)
        torch.testing.assert_close(scores[task], maml.scores(episodes)[task])


def test_inner_gradients_are_cut() -> None:
    options = {"inner_rate": 0.3, "inner_steps": 1}
    learner, episodes = smooth(MMAML, embedding_size=4, inner_clip=0.01, **options), draw_tasks()
    start, moved = learner.start(episodes), learner.adapted(episodes, 1)
    changes = torch.cat([(moved[name] - start[name]).flatten() for name in learner.adapting]) / 0.3
    torch.testing.assert_close(changes.abs().max().item(), 0.01)
    assert (changes.abs() < 0.009).any()
    free = smooth(MMAML, embedding_size=4, **options)
    changes = torch.cat([(free.adapted(episodes, 1)[name] - start[name]).flatten() for name in learner.adapting])
    assert changes.abs().max() > 0.01


def test_film_is_not_saved_as_part_of_the_network() -> None:
    assert not any("scale_" in name or "shift_" in name for name in smooth(MMAML).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"embedding_size": 0}, "embedding_size is 0"), ({"inner_clip": 0.0}, "inner_clip is 0.0")],
)
def test_mmaml_refuses_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(MMAML, **options)
