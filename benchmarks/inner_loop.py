"""A meta step of MAML, FOMAML and ANIL: kshot against `higher`, `torchopt` and a plain loop over tasks.

All sides hold the same weights (Conv4 with 32 filters, CIFAR-sized images), see the same tasks in one process, take
turns, and are first checked to give the same meta-gradient in float64. A peer without a first-order mode sits that one
out. Peak memory is that of a process of its own for each side, above what it holds before.

    pip install higher torchopt
    python benchmarks/inner_loop.py [--shots 1 5] [--tasks 4] [--repeats 9] [--memory]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from common import describe_machine, interleaved, peak_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from kshot.backbones import Conv4
from kshot.data.episodes import Episodes
from kshot.learners import ANIL, MAML
from kshot.learners.initialization import InitializationLearner
from kshot.memory import keep_freed_memory

try:
    import higher
    import torchopt
except ImportError:  # the plain loop needs neither
    higher = torchopt = None

WAYS, QUERIES, STEPS, RATE = 5, 15, 5, 0.05
ALGORITHMS = ("maml", "fomaml", "anil")
Task = tuple[Tensor, Tensor, Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--tasks", type=int, default=4, help="tasks a meta step")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="measure peak memory, too")
    parser.add_argument("--only", nargs=3, metavar=("ALGORITHM", "SIDE", "SHOTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        algorithm, side, shots = options.only
        print(peak_of(sides(algorithm, tasks_of(int(shots), options.tasks))[side]))
        return
    print(describe_machine())
    keep_freed_memory()
    for algorithm in ALGORITHMS:
        for shots in options.shots:
            compare(algorithm, shots, options)


def compare(algorithm: str, shots: int, options: argparse.Namespace) -> None:
    check_gradients(algorithm, tasks_of(shots, options.tasks, torch.float64))
    contestants = sides(algorithm, tasks_of(shots, options.tasks))
    seconds = interleaved(contestants, options.repeats)
    peers = {name: median for name, median in seconds.items() if name != "kshot"}
    best = min(peers, key=lambda name: peers[name])
    times = ", ".join(f"{name} {1e3 * median:.0f} ms" for name, median in seconds.items())
    print(f"{algorithm:6} {shots}-shot: {times}; kshot is {peers[best] / seconds['kshot']:.2f} times as fast as {best}")
    if options.memory:
        peaks = {name: peak_in_a_process(algorithm, name, shots, options.tasks) for name in contestants}
        print("       peak memory: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()))


def tasks_of(shots: int, count: int, dtype: torch.dtype = torch.float32) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    sizes = {"support": WAYS * shots, "query": WAYS * QUERIES}
    images = {part: torch.randn(count, size, 3, 32, 32, generator=generator) for part, size in sizes.items()}
    labels = {
        f"{part}_labels": torch.arange(WAYS).repeat_interleave(size // WAYS).expand(count, -1)
        for part, size in sizes.items()
    }
    classes = torch.arange(WAYS).expand(count, -1)
    float_images = {part: tensor.to(dtype) for part, tensor in images.items()}
    return Episodes(**float_images, **labels, classes=classes, keys=np.arange(count, dtype=np.uint64))


def sides(algorithm: str, episodes: Episodes) -> dict[str, Callable[[], list[Tensor]]]:
    """A function for each contestant that makes one meta step and returns the gradients."""
    dtype = episodes.support.dtype
    device = episodes.support.device
    learner = new_learner(algorithm).to(device, dtype).to(memory_format=torch.channels_last)
    tasks = list(zip(episodes.support, episodes.support_labels, episodes.query, episodes.query_labels))
    functions = {"kshot": lambda: step_of_kshot(learner, episodes)}
    for name, step in PEERS[algorithm].items():
        if (higher is None and name == "higher") or (torchopt is None and name == "torchopt"):
            continue
        network = peer_network(learner).to(device, dtype)
        functions[name] = lambda step=step, network=network: gradients_of(step, network, tasks)
    return functions


def new_learner(algorithm: str) -> InitializationLearner:
    torch.manual_seed(0)
    if algorithm == "anil":
        return ANIL(Conv4(32), ways=WAYS, inner_rate=RATE, inner_steps=STEPS)
    return MAML(Conv4(32), ways=WAYS, inner_rate=RATE, inner_steps=STEPS, first_order=algorithm == "fomaml")


def peer_network(learner: InitializationLearner) -> nn.Sequential:
    """The same network and weights from torch's layers, as the peers' own examples build it: body and head."""
    layers: list[nn.Module] = []
    for block in range(4):
        layers += [nn.Conv2d(3 if block == 0 else 32, 32, 3, padding=1), nn.BatchNorm2d(32, track_running_stats=False)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(nn.Sequential(*layers, nn.Flatten()), nn.Linear(128, WAYS))
    for own, other in zip(network.parameters(), learner.network.parameters()):
        own.data = other.detach().contiguous().clone()
    return network


def step_of_kshot(learner: InitializationLearner, episodes: Episodes) -> list[Tensor]:
    learner.zero_grad()
    learner.accumulate_gradients(episodes)
    return [parameter.grad for parameter in learner.network.parameters()]


def gradients_of(step: Callable[..., None], network: nn.Sequential, tasks: list[Task]) -> list[Tensor]:
    network.zero_grad()
    for task in tasks:
        step(network, *task, len(tasks))
    return [parameter.grad for parameter in network.parameters()]


def maml_by_higher(network, support, labels, query, query_labels, count) -> None:
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (copy, inner):
        for _ in range(STEPS):
            inner.step(cross_entropy(copy(support), labels))
        (cross_entropy(copy(query), query_labels) / count).backward()


def fomaml_by_higher(network, support, labels, query, query_labels, count) -> None:
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    with higher.innerloop_ctx(network, optimizer, track_higher_grads=False) as (copy, inner):
        for _ in range(STEPS):
            inner.step(cross_entropy(copy(support), labels))
        loss = cross_entropy(copy(query), query_labels) / count
        add_gradients(network, torch.autograd.grad(loss, list(copy.parameters())))


def anil_by_higher(network, support, labels, query, query_labels, count) -> None:
    body, head = network
    features = body(support)
    optimizer = torch.optim.SGD(head.parameters(), RATE)
    with higher.innerloop_ctx(head, optimizer, copy_initial_weights=False) as (copy, inner):
        for _ in range(STEPS):
            inner.step(cross_entropy(copy(features), labels))
        (cross_entropy(copy(body(query)), query_labels) / count).backward()


def maml_by_torchopt(network, support, labels, query, query_labels, count) -> None:
    inner = torchopt.MetaSGD(network, lr=RATE)
    weights, state = torchopt.extract_state_dict(network, by="reference"), torchopt.extract_state_dict(inner)
    for _ in range(STEPS):
        inner.step(cross_entropy(network(support), labels))
    loss = cross_entropy(network(query), query_labels) / count
    torchopt.recover_state_dict(network, weights)
    torchopt.recover_state_dict(inner, state)
    loss.backward()


def maml_by_hand(network, support, labels, query, query_labels, count, first_order=False) -> None:
    weights = dict(network.named_parameters())
    for _ in range(STEPS):
        loss = cross_entropy(functional_call(network, weights, (support,)), labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
        weights = {name: weight - RATE * g for (name, weight), g in zip(weights.items(), gradients)}
    (cross_entropy(functional_call(network, weights, (query,)), query_labels) / count).backward()


def fomaml_by_hand(*arguments) -> None:
    maml_by_hand(*arguments, first_order=True)


def anil_by_hand(network, support, labels, query, query_labels, count) -> None:
    body, head = network
    features, weights = body(support), [head.weight, head.bias]
    for _ in range(STEPS):
        loss = cross_entropy(nn.functional.linear(features, *weights), labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [weight - RATE * gradient for weight, gradient in zip(weights, gradients)]
    (cross_entropy(nn.functional.linear(body(query), *weights), query_labels) / count).backward()


def add_gradients(network: nn.Module, gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(network.parameters(), gradients):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


PEERS: dict[str, dict[str, Callable[..., None]]] = {
    "maml": {"higher": maml_by_higher, "torchopt": maml_by_torchopt, "plain loop": maml_by_hand},
    "fomaml": {"higher": fomaml_by_higher, "plain loop": fomaml_by_hand},
    "anil": {"higher": anil_by_higher, "plain loop": anil_by_hand},
}


def check_gradients(algorithm: str, episodes: Episodes) -> None:
    own, *others = (function() for function in sides(algorithm, episodes).values())
    for other in others:
        for gradient, expected in zip(own, other):
            torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)


def peak_in_a_process(algorithm: str, side: str, shots: int, tasks: int) -> float:
    command = [sys.executable, __file__, "--tasks", str(tasks), "--only", algorithm, side, str(shots)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
