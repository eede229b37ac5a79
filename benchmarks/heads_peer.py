"""Heads of kshot against those of EasyFSL 1.5 on the same features: tasks per second, and how many answers agree.

    pip install --no-deps easyfsl==1.5.0
    python benchmarks/heads_peer.py --threads 2

EasyFSL takes one task at a time, kshot all of them. Both take turns in one process, and medians count: of processor
seconds with one thread, of the clock's with more. Steps are as many on both sides. Where the two differ by design,
answers do, too: EasyFSL's TIM and transductive fine-tuning score by other distances, its PT-MAP does not centre
features, its SimpleShot compares class means by cosine, and its BD-CSPN has a sharpness of 1.
The last lines say what no head can do without: reading the images of a task, and their products with a few vectors and
with each other. More tasks than fit into the processor's cache are taken by default, as in evaluation.
EasyFSL imports torchvision for networks that are not used here; a stand-in takes its place if it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from unittest.mock import MagicMock

import torch
from common import describe_machine, interleaved
from head_solver import clustered_tasks
from torch import Tensor

from kshot.memory import keep_freed_memory
from kshot.solvers import (
    BDCSPN,
    PTMAP,
    TIM,
    CentredCentroid,
    FineTune,
    HeadAdaptation,
    LaplacianShot,
    NearestCentroid,
    TransductiveFineTune,
)
from kshot.solvers.products import inner_products, product


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--dimension", type=int, default=640)
    parser.add_argument("--tasks", type=int, default=480, help="per round; EasyFSL solves as many as it can in 1 s")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; medians are printed")
    parser.add_argument("--heads", nargs="+", default=None, help="by name; all of them by default")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with more than one, seconds are the clock's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    keep_freed_memory()
    support, labels, query = clustered_tasks(options.tasks, options.ways, options.shots, options.dimension)
    print(describe_machine())
    print(
        f"{options.ways}-way {options.shots}-shot, 15 queries per class, {options.dimension}-d, {options.tasks} tasks"
    )
    for name, (own, peer) in pairs(support.flatten(0, 1).mean(0)).items():
        if options.heads is not None and name not in options.heads:
            continue

        def batched(own: HeadAdaptation = own) -> Tensor:
            return own.head(support, labels, options.ways).scores(query).argmax(-1)

        # the same tasks, as far as there is time: fewer of them would stay in the processor's cache
        one = interleaved(
            {"EasyFSL": lambda peer=peer: answers(peer(), support[0], labels[0], query[0])}, 3, clock=clock
        )
        few = max(1, min(options.tasks, int(1 / one["EasyFSL"])))

        def one_by_one(peer: Callable[[], torch.nn.Module] = peer, few: int = few) -> Tensor:
            return torch.stack([answers(peer(), *task) for task in zip(support[:few], labels, query)])

        seconds = interleaved({"kshot": batched, "EasyFSL": one_by_one}, options.repeats, clock=clock)
        rates = options.tasks / seconds["kshot"], few / seconds["EasyFSL"]
        agreement = float((batched()[:few] == one_by_one()).float().mean())
        print(
            f"{name:<24}{rates[0]:10.0f} tasks/s, EasyFSL {rates[1]:8.1f}, ratio {rates[0] / rates[1]:7.1f}, "
            f"{100 * agreement:.1f} % of answers agree",
            flush=True,
        )
    images = torch.cat([support, query], 1)
    few_vectors = images[:, : options.ways].clone()
    few = f"products of {options.ways} vectors with {images.shape[1]} images"
    floors = {
        "reading all images once": images.sum,
        f"{few}, by kshot": lambda: product(few_vectors, images.mT),
        f"{few}, by torch": lambda: few_vectors @ images.mT,
        f"products of {images.shape[1]} images with each other, by kshot": lambda: inner_products(images),
        f"products of {images.shape[1]} images with each other, by torch": lambda: images @ images.mT,
    }
    for name, taken in interleaved(floors, options.repeats, clock=clock).items():
        print(f"{name}: {1e6 * taken / len(images):.0f} microseconds per task")


def pairs(mean: Tensor) -> dict[str, tuple[HeadAdaptation, Callable[[], torch.nn.Module]]]:
    """kshot's head, and what makes EasyFSL's for a task."""
    if importlib.util.find_spec("torchvision") is None:
        for module in ("torchvision", "torchvision.models", "torchvision.models.resnet", "torchvision.transforms"):
            sys.modules[module] = MagicMock()
    from easyfsl import methods

    unit = {"feature_normalization": 2.0}
    tuned = {"fine_tuning_steps": 200, "fine_tuning_lr": 1e-4, "temperature": 10.0}
    return {
        "centroid": (NearestCentroid(), methods.PrototypicalNetworks),
        "simpleshot": (
            CentredCentroid().centred_at(mean),
            lambda: methods.SimpleShot(feature_centering=mean, **unit),
        ),
        "fine-tune": (FineTune(temperature=10.0), lambda: methods.Finetune(**tuned)),
        "bd-cspn": (BDCSPN(sharpness=1.0), lambda: methods.BDCSPN(**unit)),
        "laplacian-shot": (LaplacianShot(neighbors=2, sharpness=1.0), lambda: methods.LaplacianShot(**unit)),
        "pt-map": (PTMAP(steps=10), lambda: methods.PTMAP(fine_tuning_steps=10)),
        "tim": (TIM(solver="gradient", steps=200), lambda: methods.TIM(fine_tuning_steps=200, **unit)),
        "tim, alternating": (TIM(), lambda: methods.TIM(fine_tuning_steps=200, **unit)),
        "transductive-fine-tune": (TransductiveFineTune(), lambda: methods.TransductiveFinetuning(**unit)),
    }


def answers(peer: torch.nn.Module, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """The classes (T,) that EasyFSL's head gives to the query features of one task."""
    with torch.no_grad():
        peer.process_support_set(support, labels)
        return peer(query).argmax(-1)


if __name__ == "__main__":
    main()
