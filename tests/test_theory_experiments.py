"""The experiments through the command, small: their files, their verdicts, and that the same options repeat."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from kshot.cli import main
from kshot.cli.signatures import parameters
from kshot.errors import ConfigError
from kshot.experiments.closeness_inner_loop import ADAPTED, FORMULA, NETWORKS, STOPPED, WITHOUT_G
from kshot.experiments.findings import experiments

SEEDS = ["--seeds", "0", "1"]
SHAPE = ["--tasks", "3", "--points", "3"]
TINY = ["--width", "32", "--depth", "2", "--target-scale", "0.01", "--max-steps", "60"]
SMALL = {
    "closeness-depth": ["--depths", "3", "10", "30", "--test-tasks", "4", *SHAPE, *SEEDS],
    "closeness-inner-loop": ["--inner-times", "0", "0.01", "--paper-times", "0", "0.005", *TINY, *SHAPE, *SEEDS],
    "finite-width": ["--widths", "16", "64", "256", *TINY[2:], *SHAPE, *SEEDS],
    "spectrum": ["--depths", "20", "80", "320", *SHAPE, *SEEDS],
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, Path]:
    folders = {}
    for name, options in SMALL.items():
        folders[name] = tmp_path_factory.mktemp(name)
        assert main(["theory", name, *options, "--out", str(folders[name])]) == 0
    return folders


def rows_of(outputs: dict[str, Path], name: str) -> list[dict[str, str]]:
    with open(outputs[name] / f"{name}.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_writes_a_table_a_picture_and_a_verdict(name, outputs, capsys):
    first = (outputs[name] / f"{name}.csv").read_text()
    assert (outputs[name] / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((outputs[name] / f"{name}.json").read_text())
    assert record["options"]["seeds"] == [0, 1]
    assert "\n" not in record["verdict"]
    assert "2 seeds" in record["verdict"]
    assert main(["theory", name, *SMALL[name], "--out", str(outputs[name])]) == 0
    assert record["verdict"] in capsys.readouterr().out
    assert (outputs[name] / f"{name}.csv").read_text() == first


def test_distance_falls_with_depth(outputs):
    distances = [float(row["distance"]) for row in rows_of(outputs, "closeness-depth")]
    assert distances[0] > 2 * distances[1] > 4 * distances[2] > 0


def test_kernels_of_a_random_network_stand_in_for_the_closed_form():
    """Figure 1 as the paper computed it: the wider the network, the closer to the closed form; lambda tau cancels."""
    options = {"depths": [3, 6, 12], "tasks": 3, "points": 3, "test_tasks": 4, "seeds": [0, 1, 2]}
    exact, *empirical = (
        [float(row["distance"]) for row in experiments["closeness-depth"](kernel_width=width, **options).run().rows]
        for width in (None, 64, 2048)
    )
    narrow, wide = (max(abs(a / b - 1) for a, b in zip(values, exact)) for values in empirical)
    assert 1e-6 < wide < narrow / 2
    assert wide < 0.2
    experiment = experiments["closeness-inner-loop"](kernel_width=64, seeds=[0])
    rows = list(experiment._by_formula(0))
    flat = [distance for curve, _, distance in rows if curve == FORMULA]
    assert max(flat) - min(flat) < 1e-9
    of_closed_form = next(experiments["closeness-inner-loop"](seeds=[0])._by_formula(0))[2]
    assert flat[0] != pytest.approx(of_closed_form, rel=1e-3)
    with pytest.raises(ConfigError, match="kernel_width is 0"):
        experiments["closeness-depth"](kernel_width=0)


def test_the_formula_is_flat_and_rises_without_g(outputs):
    rows = rows_of(outputs, "closeness-inner-loop")
    change = {row["curve"]: float(row["change"]) for row in rows}  # of the longest inner loop of each curve
    assert set(change) == {FORMULA, WITHOUT_G, NETWORKS, ADAPTED, STOPPED}
    assert abs(change[FORMULA]) < 1e-10
    assert change[WITHOUT_G] > 0.03
    assert 0 < abs(change[NETWORKS]) < 0.1
    assert [row["steps"] for row in rows if row["curve"] == FORMULA] == ["", ""]
    assert all(0 < float(row["residual"]) < 1 for row in rows if row["setting"] == "networks")


def test_inner_loops_may_all_be_longer_than_the_papers(tmp_path):
    options = ["--inner-times", "0.02", "0.01", "--paper-times", "0.001", *TINY, *SHAPE, *SEEDS, "--out", str(tmp_path)]
    assert main(["theory", "closeness-inner-loop", *options]) == 0
    verdict = json.loads((tmp_path / "closeness-inner-loop.json").read_text())["verdict"]
    assert "up to 0.001" in verdict
    assert "up to 0.02" in verdict


def test_errors_fall_with_width(outputs):
    rows = rows_of(outputs, "finite-width")
    assert [row["width"] for row in rows] == ["16", "64", "256"]
    for name in ("mtl", "anil", "ntk"):
        assert float(rows[0][name]) > 1.5 * float(rows[2][name])


def test_slopes_of_the_spectrum(outputs):
    rows = rows_of(outputs, "spectrum")
    for network, steepest, flattest in (("relu", -2.1, -1.8), ("residual", -2.1, -1.7), ("residual-prenorm", -0.8, 0)):
        norms = [float(row["norm"]) for row in rows if row["network"] == network]
        assert steepest < math.log(norms[2] / norms[1]) / math.log(4) < flattest
    plain, post = (
        [float(row["norm"]) for row in rows if row["network"] == name] for name in ("residual", "residual-postnorm")
    )
    assert post == pytest.approx([2 * norm for norm in plain])  # inputs of unit variance: half the kernels


def test_help_lists_experiments_with_a_line_each(capsys):
    assert main(["theory", "--help"]) == 0
    listed = capsys.readouterr().out
    for name in experiments:
        assert f"\n  {name} " in listed
        assert main(["theory", name, "--help"]) == 0
        assert "--out" in capsys.readouterr().out
        assert all(text for *_, text in parameters(experiments[name]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["closeness"], "there is no experiment 'closeness'"),
        (["--depths", "3", "closeness-depth"], "the experiment comes first"),
        (["closeness-depth", "--depth", "3"], "did you mean --depths"),
        (["closeness-depth", "--depths", "3", "0", "5"], "depths is 0"),
        (["closeness-depth", "--depths", "3", "5"], "three depths"),
        (["closeness-inner-loop", "--inner-times", "-1"], "no time is below 0"),
        (["finite-width", "--widths", "3", "5"], "three widths"),
        (["spectrum", "--networks", "tanh"], "networks"),
    ],
)
def test_mistakes_are_explained(words, message, capsys):
    assert main(["theory", *words]) == 2
    assert message in capsys.readouterr().err


def test_options_are_checked_in_python_too():
    with pytest.raises(ConfigError, match="choose among relu"):
        experiments["spectrum"](networks=["tanh"])
    with pytest.raises(ConfigError, match="seeds need at least one value"):
        experiments["closeness-inner-loop"](seeds=[])
