"""Pictures of images: a task with what was predicted, a sheet of sampled tasks, recognised photographs.

Right and wrong are told apart by colour (Okabe and Ito's blue and vermilion) and by a mark, never by colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from kshot.data.episodes import Episodes
from kshot.files import write_atomically
from kshot.report.names import in_picture, printable

RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#666666"
_GAP = 0.12  # between images, in sides of an image
_INCHES = 0.55  # side of an image
_NAMED = 60  # classes whose names and counts fit into a confusion matrix

Image = NDArray[np.uint8]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically; returns the path."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path


def task_picture(
    episodes: Episodes,
    class_names: Sequence[str],
    *,
    predicted: NDArray[np.int64] | None = None,
    title: str = "",
) -> Figure:
    """The first task of `episodes`: one row per class, its support images, then its query images and the predictions.

    Parameters
    ----------
    episodes
        Sampled tasks, uint8 images (B, S, H, W, C).
    class_names
        Names of the task's N classes, in the order of its labels.
    predicted
        Label of each query image, (T,); None draws the query images alone.
    title
        Text above the picture.
    """
    support, query = _rows_of_task(episodes, 0)
    width = _task_width(support, query)
    figure, axes = _canvas(width + 4.2, len(support) * (1 + _GAP), title)
    _draw_task(axes, support, query, left=4.2, top=0.0)
    step = 1 + _GAP
    for way, name in enumerate(class_names):
        lines = textwrap.wrap(f"{_letter(way)}  {printable(name)}", 26, max_lines=2, placeholder=" …")
        axes.text(4.0, way * step + 0.5, in_picture("\n".join(lines)), ha="right", va="center", fontsize=8)
    start = 4.2 + _query_left(support)
    axes.text(4.2, -0.22, "support", fontsize=8.5, color=GREY)
    axes.text(
        start, -0.22, "query: to be recognised" if predicted is None else _verdict(query, predicted), fontsize=8.5
    )
    if predicted is not None:
        _mark(axes, predicted, query, start)
    return figure


def contact_sheet(episodes: Episodes, title: str, *, columns: int = 2) -> Figure:
    """All tasks of `episodes` (uint8 images), `columns` of them per line: support images left, query images right."""
    tasks = [_rows_of_task(episodes, task) for task in range(episodes.tasks)]
    width = _task_width(*tasks[0]) + 1.0
    height = len(tasks[0][0]) * (1 + _GAP) + 1.1
    lines = -(-len(tasks) // columns)
    figure, axes = _canvas(width * min(columns, len(tasks)) - 1.0, height * lines - 0.7, title)
    for number, (support, query) in enumerate(tasks):
        left, top = number % columns * width, number // columns * height
        _draw_task(axes, support, query, left, top)
        axes.text(left, top - 0.2, f"task {number}: support", fontsize=8.5, color=GREY)
        axes.text(left + _query_left(support), top - 0.2, "query", fontsize=8.5, color=GREY)
    return figure


def predictions_picture(
    images: Sequence[Image],
    captions: Sequence[str],
    *,
    title: str,
    wrong: Sequence[bool] | None = None,
    columns: int = 6,
    rows: int = 6,
) -> Figure:
    """The first `columns` * `rows` images (H, W, C), each with its caption below: a few lines of up to 28 letters.

    The title says how many are not shown.

    Parameters
    ----------
    images, captions
        The images, and what is said of each.
    title
        Text above the picture.
    wrong
        Whether what is said of each image is wrong, which a frame and the colour of the caption show; None if that is
        not known.
    columns, rows
        How many images are shown.
    """
    count = min(len(images), columns * rows)
    columns = min(columns, count)
    if count < len(images):
        title = f"{title}: the first {count} of {len(images)}"
    lines = max(caption.count("\n") + 1 for caption in captions[:count])
    step_x, step_y = 3.2, 3.05 + 0.27 * lines
    figure, axes = _canvas(columns * step_x, -(-count // columns) * step_y, title)
    for position in range(count):
        x, y = position % columns * step_x + 0.2, position // columns * step_y
        missed = wrong is not None and wrong[position]
        _show(axes, images[position], x, y, side=2.8)
        if missed:
            axes.add_patch(Rectangle((x, y), 2.8, 2.8, fill=False, edgecolor=WRONG, lw=2.5, zorder=2))
        colour = WRONG if missed else "black"
        axes.text(
            x + 1.4, y + 2.88, in_picture(captions[position], 28), ha="center", va="top", fontsize=8, color=colour
        )
    return figure


def confusion_picture(confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str = "") -> Figure:
    """Counts (N, N): a row per true class, a column per predicted one, darker for a larger share of the row.

    Parameters
    ----------
    confusion
        How many images of the class of a row were taken for the class of a column.
    class_names
        The N classes; their names stand at the axes if there are at most 60.
    title
        Text above the picture.
    """
    ways = len(class_names)
    side = min(30.0, 2.6 + 0.28 * ways)
    figure = Figure(figsize=(side + 0.8, side), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="true class")
    axes.set_title(title, loc="left", fontsize=9)
    if ways > _NAMED:
        return figure
    labels = [in_picture(printable(name), 24) for name in class_names]
    axes.set_xticks(range(ways), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(ways), labels, fontsize=7)
    for row, column in zip(*confusion.nonzero()):
        colour = "white" if shares[row, column] > 0.5 else WRONG if row != column else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7, color=colour)
    return figure


def _rows_of_task(episodes: Episodes, task: int) -> tuple[list[list[Image]], list[list[Image]]]:
    """Support and query images of a task, one list per class; classes may differ in how many they have."""
    parts = ((episodes.support, episodes.support_labels), (episodes.query, episodes.query_labels))
    sorted_by_class = []
    for images, labels in parts:
        pixels, of_class = images[task].cpu().numpy(), labels[task].cpu().numpy()
        sorted_by_class.append([list(pixels[of_class == way]) for way in range(episodes.ways)])
    return sorted_by_class[0], sorted_by_class[1]


def _query_left(support: list[list[Image]]) -> float:
    return max(map(len, support)) * (1 + _GAP) + 0.5


def _task_width(support: list[list[Image]], query: list[list[Image]]) -> float:
    return _query_left(support) + max(map(len, query)) * (1 + _GAP)


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Axes measured in sides of an image, y downwards, with room for a title above."""
    margin, head = 0.25, 1.15
    total_width, total_height = width + 2 * margin, height + head + margin
    figure = Figure(figsize=(total_width * _INCHES, total_height * _INCHES), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -head))
    axes.axis("off")
    letters = max(20, round(total_width * _INCHES / 0.1))
    axes.text(0, -0.72, in_picture(title, letters), fontsize=11, fontweight="bold", va="center")
    return figure, axes


def _draw_task(axes: Axes, support: list[list[Image]], query: list[list[Image]], left: float, top: float) -> None:
    step = 1 + _GAP
    for way, (known, asked) in enumerate(zip(support, query)):
        for position, image in enumerate(known):
            _show(axes, image, left + position * step, top + way * step)
        for position, image in enumerate(asked):
            _show(axes, image, left + _query_left(support) + position * step, top + way * step)


def _show(axes: Axes, image: Image, x: float, y: float, side: float = 1.0) -> None:
    pixels = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    tall, wide = (size / max(image.shape[:2]) * side for size in image.shape[:2])
    left, top = x + (side - wide) / 2, y + (side - tall) / 2
    limits = axes.axis()
    axes.imshow(pixels, extent=(left, left + wide, top + tall, top), interpolation="antialiased", zorder=1)
    axes.axis(limits)
    axes.set_aspect("auto")


def _mark(axes: Axes, predicted: NDArray[np.int64], query: list[list[Image]], start: float) -> None:
    """A frame around each query image: blue if right; if wrong vermilion, with the letter of the predicted class."""
    step, number = 1 + _GAP, 0
    for way, images in enumerate(query):
        for position in range(len(images)):
            x, y, label = start + position * step, way * step, int(predicted[number])
            right = label == way
            frame: dict[str, Any] = {"fill": False, "lw": 1.1 if right else 2.2, "ec": RIGHT if right else WRONG}
            axes.add_patch(Rectangle((x, y), 1, 1, zorder=2, **frame))
            if not right:
                badge = {"boxstyle": "square,pad=0.12", "fc": WRONG, "ec": "none"}
                axes.text(x + 0.97, y + 0.95, _letter(label), ha="right", va="bottom", fontsize=7, color="white",
                          fontweight="bold", bbox=badge, zorder=3)  # fmt: skip
            number += 1


def _verdict(query: list[list[Image]], predicted: NDArray[np.int64]) -> str:
    truth = np.repeat(np.arange(len(query)), [len(images) for images in query])
    right = int((predicted == truth).sum())
    return f"query: {right} of {len(truth)} recognised; a letter says what a wrong one was taken for"


def _letter(way: int) -> str:
    return chr(ord("A") + way) if way < 26 else str(way + 1)
