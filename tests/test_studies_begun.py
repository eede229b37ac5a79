"""What is refused before a study runs, and what may change once it was begun."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from study_toys import TINY, TRIAL

import kshot
from kshot.errors import ConfigError, DataError
from kshot.files import write_text
from kshot.studies import EngineOptions
from kshot.studies import plan as plans
from kshot.studies.engines import ENGINES, create_engine
from kshot.studies.scheduler import Outcome


@pytest.fixture
def make(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the study of a text, always in the same folder."""
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: TRIAL)

    def study_of(text: str = TINY, **options: Any) -> kshot.Study:
        write_text(tmp_path / "tiny.yaml", text)
        return kshot.Study(tmp_path / "tiny.yaml", folder=tmp_path / "study", root=tiny_root, **options)

    return study_of


def begin(study: kshot.Study) -> None:
    study.take_into_use()
    study.cell_folder(study.cells[0]).write(study.cells[0])


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": -1}, {"threads": 0}, {"threads": -1}, {"gpus": -1}, {"hours": 0.0},
     {"seconds_between_copies": 0.0}],
)  # fmt: skip
def test_options_of_engines_that_make_no_sense_are_refused(wrong):
    (option,) = wrong
    with pytest.raises(ConfigError, match=f"{option} is .* but must be"):
        EngineOptions(**wrong)


@pytest.mark.parametrize("engine", ENGINES)
def test_options_of_another_engine_are_refused(engine, monkeypatch):
    """Who forgets --engine slurm would compute on the machine where jobs are queued."""
    monkeypatch.setattr("kshot.studies.engines.find_spec", lambda name: None)
    given = {"address": "auto", "seconds_between_copies": 5, "partition": "gpu", "hours": 1, "slurm_local": True}
    of = {"address": "ray", "seconds_between_copies": "ray"}
    for option, value in given.items():
        mine = engine == of.get(option, "slurm")
        message = "needs the package" if mine else f"{option} is an option of the engine {of.get(option, 'slurm')}"
        with pytest.raises(ConfigError, match=message):
            create_engine(engine, EngineOptions(**{option: value}), root=None, version="")


def test_nothing_is_tried_or_written_for_an_engine_that_is_not_there(make, say, monkeypatch):
    study = make()
    monkeypatch.setattr(plans, "_tried", None)
    for action in ("plan", "run"):
        words = [study.typed, "--out", str(study.folder), "--root", str(study.root), "--engine", "cloud"]
        code, _, error = say("study", action, *words)
        assert (code, "choose one of: local, ray, slurm" in error) == (2, True)
    for options in ({"retries": -1}, {"trial_seconds": 0}):
        with pytest.raises(ConfigError):
            study.run(**options)
    with pytest.raises(ConfigError, match="threads is 0"):
        study.plan(threads=0)
    assert not study.folder.exists()


def test_prose_and_seeds_of_a_begun_study_may_change(make):
    begin(make())
    begin(make(TINY.replace("title: A tiny study", "title: Another\nreference: mtl").replace("[0, 1]", "[0, 1, 2]")))
    assert "title: Another" in (make().folder / "study.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "key"),
    [(("shots: [1, 5]", "shots: [1]"), "measure"), (("width: 8", "width: 4"), "common"), (("mtl:", "other:"), "cells"),
     (("title: A", "budget: 1h-per-cell\ntitle: A"), "budget")],
)  # fmt: skip
def test_what_cells_depend_on_may_change_until_one_is_planned(make, change, key):
    make().take_into_use()
    changed = make(TINY.replace(*change))
    changed.take_into_use()
    begin(make())
    with pytest.raises(ConfigError, match=f"holds a study tiny with other {key}; run it as it was begun"):
        make(TINY.replace(*change)).take_into_use()


def test_a_trial_that_failed_is_tried_again(make, monkeypatch):
    """The budget was too short, for instance."""
    lines: list[str] = []
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: {"error": "too short"})
    for _ in range(2):
        make().run(say=lines.append)
    assert lines == [f"failed   {cell.name}: too short" for cell in make().cells] * 2


def test_the_exit_status_says_whether_a_cell_failed(make, say, monkeypatch):
    """Of those that were asked for: a script that runs the others must not stop because of an earlier failure."""
    study = make(seeds=[0])
    words = ["study", "run", study.typed, "--out", str(study.folder), "--root", str(study.root), "--seeds", "0"]
    monkeypatch.setattr("kshot.studies.study.run_jobs", lambda *args, **options: Outcome())
    assert say(*words)[0] == 0
    study.cell_folder(study.cells[0]).fail("diverged", lasting=True, place="here")
    code, output, _ = say(*words)
    assert (code, "1 failed" in output) == (1, True)
    assert say(*words, "--cells", study.cells[1].name)[0] == 0


def test_the_command_that_goes_on_has_all_that_was_chosen(make):
    study = make(data=["tiny"], seeds=[0], budget="1h-per-cell")
    begin(study)
    where = f"{study.typed} --out {study.folder}"
    chosen = f"{where} --data tiny --seeds 0 --root {study.root} --budget 1h-per-cell"
    with pytest.raises(DataError, match=re.escape(f"run: kshot study run {chosen}")):
        study.report()
    assert make().command("report") == f"kshot study report {where} --root {study.root} --budget 1h-per-cell"


def test_a_file_in_the_place_of_the_folder_is_named(make, tmp_path):
    write_text(tmp_path / "study", "")
    with pytest.raises(ConfigError, match="is a file, but a study needs a folder"):
        make()


def test_a_damaged_file_of_a_study_is_named(make):
    for text in ("[", "text"):
        write_text(make().folder / "study.yaml", text)
        with pytest.raises(DataError, match=r"study\.yaml is damaged; remove it"):
            make().take_into_use()


def test_ctrl_c_says_that_the_same_command_goes_on(make, say, monkeypatch):
    study = make()

    def press(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kshot.studies.study.run_jobs", press)
    code, _, error = say("study", "run", study.typed, "--out", str(study.folder), "--root", str(study.root))
    assert (code, "stopped: 4 cells: 4 waiting; the same command goes on" in error) == (130, True)


def test_what_hinders_a_plan_stands_below_its_table(make, monkeypatch):
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: {"error": "too short " * 20})
    *table, _, problem = str(make().plan()).splitlines()
    assert max(map(len, table)) < 120
    assert problem.startswith("mtl, protonet: too short")
