"""What each of four faults in the release of Wang et al. (2021) costs: MTL with and without it, same seeds, paired.

    python benchmarks/release_faults.py --data cifar-fs --seeds 0 1 2 --out faults

- label merge: the release renames a task's labels to 0..N-1 in place, one class after the other. A class whose global
  number is small can be renamed twice, and is then one with another class of its task.
- last epoch: its callback never saves the best checkpoint, so that the weights of the last epoch are tested.
- counter: DropBlock's counter is not saved, so that a resumed run starts its ramp again; here at half of the training.
- incomplete blocks: DropBlock pairs blocks and offsets by two `repeat`s, so that blocks have holes if their number
  shares a factor with the number of places of a block.

All sides see the same tasks, the same augmentation and the same initial weights. A training that is in the folder --out
is not repeated, and one that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import describe_machine
from torch import Tensor

import kshot
from kshot.backbones import DropBlock, batch_of_tasks
from kshot.backbones.dropout import current_task_batch, uniform_like
from kshot.data import Split
from kshot.data.episodes import Episodes
from kshot.evaluation.results import Evaluation, compare
from kshot.intervals import MeanInterval, mean_interval
from kshot.learners import MultiTask, learners
from kshot.runs import checkpoints


@learners.register("mtl-with-label-fault")
class MultiTaskWithLabelFault(MultiTask):
    """MTL whose training labels went through the renaming of the release."""

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The scores of MTL, and labels some of which are merged."""
        scores, labels = super().training_scores(episodes)
        return scores, renamed_in_place(episodes.classes.gather(1, labels), episodes.classes)


def renamed_in_place(labels: Tensor, classes: Tensor) -> Tensor:
    """Labels (B, T) renamed from classes (B, N) to positions one class after the other, as the release does."""
    renamed = labels.clone()
    for position in range(classes.shape[1]):
        renamed[renamed == classes[:, position, None]] = position
    return renamed


def faulty_share(num_classes: int, ways: int, tasks: int = 100_000) -> tuple[float, float]:
    """Shares of tasks and of labels that the renaming gets wrong, by simulation."""
    generator = np.random.default_rng(0)
    drawn = generator.random((tasks, num_classes)).argsort(1)[:, :ways]
    classes = torch.from_numpy(drawn)
    wrong = renamed_in_place(classes, classes) != torch.arange(ways)
    return wrong.any(1).double().mean().item(), wrong.double().mean().item()


@learners.register("mtl-with-counter-fault")
class MultiTaskWithCounterFault(MultiTask):
    """MTL whose DropBlock layers begin their ramp again at half of it, as in a run that was resumed there."""

    epochs_seen: Tensor

    def __init__(
        self,
        backbone: kshot.backbones.Backbone,
        *,
        num_classes: int,
        scale: float | None = None,
        reset_epoch: int = 1,
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, scale=scale)
        self.reset_epoch = reset_epoch
        self.register_buffer("epochs_seen", torch.zeros((), dtype=torch.int64))

    def observe_training_split(self, split: Split) -> None:
        """Called after each epoch."""
        self.epochs_seen += 1
        if int(self.epochs_seen) == self.reset_epoch:
            for layer in self.modules():
                if isinstance(layer, DropBlock):
                    layer.training_tasks.zero_()


class IncompleteDropBlock(DropBlock):
    """DropBlock that pairs the k-th block, modulo their number, with the k-th offset, modulo size^2."""

    def _keep_mask(self, maps: Tensor) -> Tensor:
        side = maps.shape[-1]
        size = min(self.size, side)
        places = side - size + 1
        gamma = self.drop_probability() / size**2 * side**2 / places**2
        corners = uniform_like(maps[..., :places, :places]) < gamma
        left = (size - 1) // 2  # one place of every block is marked in any case
        masks = []
        for of_task in corners.unflatten(0, (current_task_batch().count, -1)):
            dropped = F.pad(of_task.float(), (left, size - 1 - left, left, size - 1 - left))
            blocks = of_task.nonzero()
            pairs = torch.arange(len(blocks) * size**2)
            image, channel, row, column = blocks[pairs % max(1, len(blocks))].unbind(1)
            offset = pairs % size**2
            dropped[image, channel, row + offset // size, column + offset % size] = 1
            masks.append(1 - dropped)
        return torch.cat(masks)


def dropped_shares(size: int, side: int, *, rate: float = 0.1, tasks: int = 12) -> dict[str, MeanInterval]:
    """The share of values that whole and incomplete blocks drop from maps (50, 80, side, side), over tasks."""
    shares: dict[str, list[float]] = {"whole": [], "incomplete": []}
    for name, cls in (("whole", DropBlock), ("incomplete", IncompleteDropBlock)):
        layer = cls(rate, size=size, ramp_tasks=1).train()
        layer.training_tasks += 1
        for task in range(tasks):
            with batch_of_tasks(1, np.asarray([task], np.uint64)):
                shares[name].append(float((layer(torch.ones(50, 80, side, side)) == 0).float().mean()))
    return {name: mean_interval(values) for name, values in shares.items()}


def networks_of(arguments: argparse.Namespace, data: kshot.Dataset) -> dict[str, Callable[[], MultiTask]]:
    """The correct learner and those with a fault, by name; "last epoch" needs no training of its own."""
    channels, size, _ = data.train.image_shape
    options = {"num_classes": data.train.num_classes, "scale": arguments.scale}

    def backbone() -> kshot.ResNet12:
        return kshot.ResNet12(
            widths=tuple(arguments.widths), in_channels=channels, image_size=size, ramp_tasks=_ramp(arguments)
        )

    def incomplete() -> MultiTask:
        learner = MultiTask(backbone(), **options)
        for layer in learner.modules():
            if isinstance(layer, DropBlock):
                layer.__class__ = IncompleteDropBlock
        return learner

    return {
        "correct": lambda: MultiTask(backbone(), **options),
        "label merge": lambda: MultiTaskWithLabelFault(backbone(), **options),
        "counter": lambda: MultiTaskWithCounterFault(backbone(), **options, reset_epoch=(arguments.epochs + 1) // 2),
        "incomplete blocks": incomplete,
    }


def _ramp(arguments: argparse.Namespace) -> int:
    """The ramp ends at half of the training, where the counter's fault begins it again."""
    return max(1, arguments.epochs * arguments.tasks_per_epoch // 2)


def measured(
    arguments: argparse.Namespace, data: kshot.Dataset, name: str, make: Callable[[], MultiTask], seed: int
) -> dict[str, dict[int, Evaluation]]:
    """The evaluations of one training by number of shots, of the best epoch and, of the correct one, of the last."""
    torch.manual_seed(seed)
    learner = make()
    folder = arguments.out / f"{name.replace(' ', '-')}-seed{seed}"
    run = kshot.train(
        learner,
        data,
        run=folder,
        max_epochs=arguments.epochs,
        tasks_per_epoch=arguments.tasks_per_epoch,
        learning_rate=arguments.learning_rate,
        validation_tasks=arguments.validation_tasks,
        validation_queries=arguments.queries,
        patience=0,
        precision=arguments.precision,
        seed=seed,
        progress=False,
    )
    results = {name: _evaluations(arguments, run.learner, data)}
    if name == "correct":
        run.learner.load_state_dict(checkpoints.load(folder / "checkpoints" / "last.pt")["learner"])
        results["last epoch"] = _evaluations(arguments, run.learner, data)
    return results


def _evaluations(arguments: argparse.Namespace, learner: MultiTask, data: kshot.Dataset) -> dict[int, Evaluation]:
    features = kshot.extract_features(learner, data.test)
    options = {"tasks": arguments.tasks, "queries": arguments.queries, "features": features}
    return {shots: kshot.evaluate(learner, data.test, shots=shots, **options) for shots in (1, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar-fs")
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("faults"), help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tasks-per-epoch", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--scale", type=float, help="of the scores, learnt from this start; the release has none")
    parser.add_argument("--widths", type=int, nargs=4, default=[16, 32, 64, 128])
    parser.add_argument("--validation-tasks", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    arguments = parser.parse_args()

    data = kshot.load(arguments.data, root=arguments.root)
    tasks, labels = faulty_share(data.train.num_classes, ways=5)
    print(describe_machine())
    print(f"label merge: {100 * tasks:.1f} % of tasks and {100 * labels:.1f} % of labels are wrong, by simulation")
    for size, side in ((2, 4), (2, 2)) if data.train.image_shape[-1] < 64 else ((5, 10), (5, 5)):
        texts = [
            f"{name} {100 * share:.1f} ± {100 * ci95:.1f} %"
            for name, (share, ci95) in dropped_shares(size, side).items()
        ]
        print(
            f"blocks of {size} on maps of {side}x{side} drop: {', '.join(texts)} of the values (12 tasks of 50 images)"
        )
    costs: dict[tuple[str, int], list[float]] = defaultdict(list)
    for seed in arguments.seeds:
        results: dict[str, dict[int, Evaluation]] = {}
        for name, make in networks_of(arguments, data).items():
            results |= measured(arguments, data, name, make, seed)
        for name, by_shots in results.items():
            for shots, result in by_shots.items():
                line = f"training seed {seed}, {name}: {result}"
                if name != "correct":
                    paired = compare(results["correct"][shots], result)
                    costs[name, shots].append(100 * paired.mean)
                    line += f"; costs {100 * paired.mean:+.2f} ± {100 * paired.ci95:.2f} points (over tasks)"
                print(line, flush=True)
    if len(arguments.seeds) > 1:
        for (name, shots), values in costs.items():
            mean, ci95 = mean_interval(values)
            print(f"{name}, {shots}-shot: costs {mean:+.2f} ± {ci95:.2f} points over {len(values)} trainings")


if __name__ == "__main__":
    main()
