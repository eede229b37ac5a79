"""Pictures: what they draw, and that no name, however odd, changes or breaks them."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from report_toys import HOSTILE_NAMES, config, content

from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.report import pictures
from kshot.report.curves import learning_curves, race_picture
from kshot.report.names import display_names, in_picture, printable, shortened
from kshot.report.race import races_of, time_columns


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_tasks(toy_split, tmp_path, channels):
    split = toy_split([12] * 6, channels=channels)
    episodes = EpisodeSampler(split, TaskShape(3, 2, 4), seed=0).episodes(np.arange(5))
    predicted = np.asarray([0, 0, 0, 0, 1, 2, 1, 1, 2, 2, 2, 0])
    task = pictures.task_picture(episodes, ["one", "two", "three"], predicted=predicted, title="a task")
    texts = [text.get_text() for text in task.axes[0].texts]
    assert any(text.startswith("query: 10 of 12 recognised") for text in texts)
    assert texts[-2:] == ["C", "A"]
    assert len(task.axes[0].images) == 3 * (2 + 4)
    sheet = pictures.contact_sheet(episodes, "tasks")
    assert len(sheet.axes[0].images) == 5 * 3 * (2 + 4)
    for name, figure in (("task", task), ("sheet", sheet)):
        assert pictures.save(figure, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curves_show_the_best_epoch():
    metrics = {"epoch": np.arange(1.0, 4), "accuracy": np.array([0.4, 0.6, 0.7])}
    metrics |= {"validation_accuracy": np.array([0.35, 0.55, 0.5]), "validation_ci95": np.full(3, 0.02)}
    figure = learning_curves(metrics, "run")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training", "validation, with its 95% interval", "best 55.0 %, epoch 2"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [35, 55, 50])
    metrics["validation_accuracy"] = np.full(3, np.nan)
    labels = [text.get_text() for text in learning_curves(metrics, "not validated").legends[0].get_texts()]
    assert labels == ["training"]


def drawn_texts(figure):
    """Every text of a figure with its place in pixels, after drawing; a glyph that the font lacks is no failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    texts += [text for axes in figure.axes for text in [*axes.texts, axes.title, axes._left_title]]
    return [(text, text.get_window_extent(renderer)) for text in texts if text.get_text()]


@pytest.mark.parametrize("best", [0, 5, 11])
def test_no_text_covers_a_curve(best):
    run = content("run")
    run.metrics["validation_accuracy"][best] = 0.9
    race = race_picture(races_of([content(f"run-{n}", n) for n in range(8)])[0])
    for figure in (learning_curves(run.metrics, "run"), race):
        places = [place for _, place in drawn_texts(figure)]
        assert len(places) >= 4
        assert not any(place.overlaps(figure.axes[0].bbox) for place in places)
        assert not any(first.overlaps(second) for first, second in pairwise(places))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_drawn_letter_by_letter_and_stay_in_the_picture(name, toy_split):
    episodes = EpisodeSampler(toy_split([12] * 6), TaskShape(3, 2, 4), seed=0).episodes(np.arange(1))
    image = episodes.query[0, 0].numpy()
    figures = [
        learning_curves(content("run").metrics, name),
        race_picture(races_of([content(name), content("other", 1)])[0]),
        pictures.task_picture(episodes, [name] * 3, title=name),
        pictures.contact_sheet(episodes, name),
        pictures.predictions_picture([image] * 6, [name] * 6, title=name),
    ]
    for figure in figures:
        drawn = drawn_texts(figure)
        start = in_picture(name.strip())[:4]
        assert any(start in text.get_text() for text, _ in drawn), "the name is not drawn at all"
        for text, place in drawn:
            _, is_formula = text._preprocess_math(text.get_text())
            assert not is_formula
            assert place.x0 >= 0
            assert place.x1 <= figure.bbox.x1


def test_names_are_printable_short_and_distinct():
    for name in HOSTILE_NAMES:
        assert printable(name).isprintable()
        printable(name).encode()
    assert printable("Füchse, 狐") == "Füchse, 狐"
    assert shortened("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"
    assert shortened("short", 5) == "short"
    alike = [f"{'x' * 50}{number}{'y' * 50}" for number in range(3)]
    assert len(set(display_names(alike, 20))) == 3
    assert display_names(["x" * 50, "x" * 50], 20) == ["x" * 10 + "…" + "x" * 9] * 2


def test_pace_is_the_best_accuracy_by_the_end_of_each_epoch():
    def run(name, accuracies, seconds, **fields):
        metrics = {"epoch": np.arange(1.0, 1 + len(accuracies)), "validation_accuracy": np.asarray(accuracies)}
        timing = {"seconds": np.asarray(seconds), "images_per_second": 1000 * metrics["epoch"]}
        return content(name, **{"metrics": metrics, "timing": timing} | fields)

    quick, slow = run("quick", (0.41, 0.39, 0.52), (30, 30, 60)), run("slow", (0.4, 0.6), (300, 300))
    (paces,) = races_of([quick, slow])
    assert paces[0].best.tolist() == [41, 41, 52]
    assert paces[0].seconds.tolist() == [30, 60, 120]
    columns = time_columns(paces)
    assert columns.pop("ms per image") == ["0.500", "0.667"]
    assert columns == {
        "": ["quick", "slow"],
        "min to 40 %": ["0.5", "5.0"],
        "min to 45 %": ["2.0", "10.0"],
        "min to 50 %": ["2.0", "10.0"],
        "min to 55 %": ["-", "10.0"],
        "min to 60 %": ["-", "10.0"],
    }

    def groups(*runs):
        return [[pace.name for pace in paces] for paces in races_of(runs)]

    others = [
        run("ways", (0.4, 0.6), (300, 300), config=config(validation_ways=20)),
        run("data", (0.4, 0.6), (300, 300), config=config("fc100")),
        run("slow", (0.4, 0.6), (300, 300)),
    ]
    assert groups(quick, *others) == [["quick", "slow"], ["ways"], ["data"]]
    assert groups(quick, run("not validated", (np.nan, np.nan), (1, 1))) == [["quick"]]
    assert groups(run("staged", (0.4, 0.6), (300, 300), timing=None), content("new", metrics=None)) == []
