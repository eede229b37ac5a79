"""All that wants a GPU, in one call of ten minutes: speeds, second-order MAML, solvers on CUDA, and the recipe itself.

    python benchmarks/gpu.py [--minutes 10] [--root DATA] [--out runs/gpu]
    python benchmarks/gpu.py --tiny         # that the script works: on a CPU, in seconds

The parts come in the order of what they are worth, and a part that would not fit into the time left is skipped, with a
line that says so. The last one takes what is left to train ResNet-12 on CIFAR-FS by `mtl-cifar-fs-5shot-cpu`, which a
second call resumes. Without a GPU the same code runs on the CPU, and its numbers say nothing of one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import training
from common import describe_machine, interleaved
from inner_loop import check_gradients, sides, tasks_of

from kshot.data.episodes import Episodes

ROOT = Path(__file__).parents[1]
VARIANTS = {  # precision, memory format, torch.compile
    "float32": {"precision": "float32", "channels_last": False, "compile": False},
    "float32, channels_last": {"precision": "float32", "channels_last": True, "compile": False},
    "bf16": {"precision": "bf16", "channels_last": False, "compile": False},
    "bf16, channels_last": {"precision": "bf16", "channels_last": True, "compile": False},
    "bf16, channels_last, compiled": {"precision": "bf16", "channels_last": True, "compile": True},
}


@dataclass(frozen=True)
class Sizes:
    """How much is done, on a GPU and in the test of the script."""

    backbone: str = "resnet12"
    steps: int = 100
    repeats: int = 3
    maml_tasks: int = 32
    maml_repeats: int = 5


TINY = Sizes(backbone="conv4", steps=1, repeats=1, maml_tasks=2, maml_repeats=1)


def speeds(sizes: Sizes, device: torch.device) -> None:
    """Images per second of bare steps and of the whole loop, for each way to compute; the ratio is that of medians."""
    data = training.random_photographs()
    tiny = sizes == TINY
    for tasks in ("5-way", "64-way"):
        for name, variant in VARIANTS.items():
            if tiny and (tasks == "5-way" or name not in ("float32", "bf16, channels_last")):
                continue
            options = argparse.Namespace(
                tasks=tasks, learner="mtl", backbone=sizes.backbone, steps=sizes.steps, **variant
            )
            seconds = interleaved(
                {
                    "bare": training.bare_steps(data, options, device),
                    "loop": training.loop_steps(data, options, device),
                },
                sizes.repeats,
            )
            shape, meta_batch = training.TASKS[tasks]
            images = sizes.steps * meta_batch * shape.ways * (shape.shots + shape.queries)
            rates = {side: images / median for side, median in seconds.items()}
            print(
                f"{sizes.backbone}, {meta_batch} x {shape}, {name}: bare {rates['bare']:,.0f} images/s, loop "
                f"{rates['loop']:,.0f} images/s, {seconds['loop'] / seconds['bare']:.3f} times the time",
                flush=True,
            )


def second_order(sizes: Sizes, device: torch.device) -> None:
    """A meta step of second-order MAML against a plain loop over tasks, equal in float64 first."""
    check_gradients("maml", on(tasks_of(1, 2, torch.float64), device))
    for shots in (1, 5):
        contestants = sides("maml", on(tasks_of(shots, sizes.maml_tasks), device))
        pair = {name: ending_together(contestants[name], device) for name in ("kshot", "plain loop")}
        seconds = interleaved(pair, sizes.maml_repeats)
        print(
            f"MAML, second order, {shots}-shot, {sizes.maml_tasks} tasks: kshot {1e3 * seconds['kshot']:.0f} ms, plain "
            f"loop {1e3 * seconds['plain loop']:.0f} ms, {seconds['plain loop'] / seconds['kshot']:.1f} times",
            flush=True,
        )


def on(episodes: Episodes, device: torch.device) -> Episodes:
    """The tasks on `device`."""
    names = ("support", "support_labels", "query", "query_labels", "classes")
    return replace(episodes, **{name: getattr(episodes, name).to(device) for name in names})


def ending_together(step: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The step, and the wait for what it started on a GPU."""

    def run() -> None:
        step()
        training.synchronize(device)

    return run


def solvers() -> None:
    """The tests of the solvers on CUDA."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/test_solvers_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(f"tests/test_solvers_cuda.py: {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr}")


def recipe(root: Path, out: Path, seconds: float) -> None:
    """Train ResNet-12 by its recipe for so long, and measure it once training has ended."""
    run, limit = out / "mtl-cifar-fs-5shot-cpu", seconds - 30
    command = [sys.executable, "-m", "kshot", "train", "--root", str(root)]
    how = ["--resume", str(run)] if run.is_dir() else ["--recipe", "mtl-cifar-fs-5shot-cpu", "--run", str(run)]
    try:
        subprocess.run([*command, *how], timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        print(f"{run}: not finished; the next call resumes it from its last epoch")
        return
    measure = ["evaluate", str(run), "--root", str(root), "--shots", "1", "5", "--tasks", "2000"]
    subprocess.run([sys.executable, "-m", "kshot", *measure], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--root", type=Path, help="folder of prepared datasets, for the recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--tiny", action="store_true", help="try the script at the smallest sizes")
    args = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    device, sizes = torch.device("cuda" if has_gpu else "cpu"), TINY if args.tiny else Sizes()
    end = time.perf_counter() + 60 * args.minutes
    print(describe_machine())
    if not has_gpu:
        print("no GPU: what follows ran on the CPU, and its numbers say nothing of a GPU")
    parts: list[tuple[str, float, str | None, Callable[[], None]]] = [  # with the minutes that a GPU needs at most
        ("solvers on CUDA", 1, None if has_gpu else "no GPU", solvers),
        ("second-order MAML", 1, None, lambda: second_order(sizes, device)),
        ("speeds of ResNet-12", 4, None, lambda: speeds(sizes, device)),
        (
            "the recipe of ResNet-12",
            2,
            "no --root" if args.root is None else None if has_gpu else "no GPU",
            lambda: recipe(args.root, args.out, end - time.perf_counter()),
        ),
    ]
    for name, minutes, reason, part in parts:
        left = (end - time.perf_counter()) / 60
        if reason is None and left < minutes:
            reason = f"{left:.1f} minutes are left, and it needs {minutes:g}"
        print(f"--- {name}" + (f": skipped, {reason}" if reason else ""), flush=True)
        if reason is None:
            part()


if __name__ == "__main__":
    main()
