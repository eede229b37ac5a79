"""Studies: their files, cells and budgets; running, failing and resuming cells; what stands on their pages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kshot
from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.files import write_text
from kshot.learners import learners
from kshot.recipes import Published, published_rows
from kshot.report.study_numbers import Column, Number, pairs_of, text_of, verdict_of
from kshot.runs import lock
from kshot.studies import plan as plans
from kshot.studies import study_file
from kshot.studies.budget import Budget, Costs, length_of, shortened
from kshot.studies.cell import DONE, FAILED, OTHER_VERSION, TAKEN, run_cell, version
from kshot.studies.cell_folder import CellFolder
from kshot.studies.cells import cells_of
from kshot.studies.engines import ENGINES, Ended, Engine, EngineOptions, Job, create_engine
from kshot.studies.scheduler import run_jobs
from kshot.studies.simulation import simulate

TINY = """
title: A tiny study
common: {validation_tasks: 4, backbone.width: 8, meta_batch: 2, tasks_per_epoch: 4, max_epochs: 2, queries: 2,
         validation_queries: 2}
data: [tiny]
seeds: [0, 1]
cells:
  mtl: {recipe: mtl-cifar-fs-5shot-conv4, options: {ways: 5}}
  protonet: {recipe: protonet-cifar-fs-5shot-conv4, options: {ways: 5}}
measure: {ways: 5, shots: [1, 5], queries: 2, tasks: 12}
"""
COSTS = {"start": 1, "task": 0.1, "validation": 0.01, "measuring": 5, "memory": 100, "disk": 2}
TRIAL = {"on": "its data", "costs": COSTS, "max_epochs": 2, "tasks_per_epoch": 4, "images_per_task": 20}


@pytest.fixture
def tiny(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> kshot.Study:
    """A study of four cells on tiny images, whose trials are not run."""
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: TRIAL)
    write_text(tmp_path / "tiny.yaml", TINY)
    return kshot.Study(tmp_path / "tiny.yaml", folder=tmp_path / "study", root=tiny_root)


class InProcess(Engine):
    """Runs each cell at once, in this process."""

    def __init__(self, root: Path | None, codes: Sequence[int | None] = ()) -> None:
        super().__init__(EngineOptions(), root=root, version=version())
        self.codes, self.over, self.started = iter(codes), [], []  # type: ignore[var-annotated]

    def start(self, job: Job) -> bool:
        self.started.append(job)
        code = next(self.codes, "run")  # type: ignore[call-overload]
        code = run_cell(job.folder, root=self.root) if code == "run" else code
        self.over.append(Ended(job.folder.name, code, f"place {len(self.started)}"))
        return True

    def ended(self) -> list[Ended]:
        over, self.over = self.over, []
        return over

    def stop(self) -> None:
        pass


def run_here(study: kshot.Study, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr("kshot.studies.study.create_engine", lambda *args, **more: InProcess(study.root))
    return study.run(say=lambda line: None, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cells:", "cels:"), r"no entry 'cels' \(did you mean 'cells'\?\)"),
        (("recipe: mtl-cifar-fs-5shot-conv4", "recipe: mtl-cifr-fs"), "cell mtl: there is no recipe 'mtl-cifr-fs'"),
        (("{ways: 5}}\n  p", "{wys: 5}}\n  p"), r"cell mtl: .* no option 'wys' .*\(did you mean 'ways'\?\)"),
        (("{ways: 5}}\n  p", "{ways: five}}\n  p"), "cell mtl: .*ways"),
        (("{ways: 5}}\n  p", "{seed: 5}}\n  p"), "cell mtl: .*'seed'"),
        (("{ways: 5}}\n  p", "{learner.temper: 5}}\n  p"), "cell mtl: mtl has no option 'temper'"),
        (("{ways: 5}}\n  p", "{lerner.name: mtl}}\n  p"), "no section 'lerner'"),
        (("seeds: [0, 1]", "seeds: [0, 0]"), "give each of them once"),
        (("seeds: [0, 1]", "seeds: [a]"), "list of whole numbers"),
        (("tasks: 12", "tusks: 12"), "measure has no entry 'tusks'"),
        (("tasks: 12", "tasks: 0"), r"measure\.tasks is 0"),
        (("title: A tiny study", "title: [1"), "is not YAML"),
        (("title: A tiny study", "tables: [W21 table 9]"), "no recipe has a value of 'W21 table 9'"),
        (("title: A tiny study", "budget: 10 minutes"), "write full for what the recipes say, or a time"),
        (("  protonet: {recipe: protonet", "  other: {recipe: mtl"), "mtl-seed0 and other-seed0 collide"),
        (("  protonet:", "  mtl/x:"), "letters, digits"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_with_the_place(change, message):
    assert change[0] in TINY
    with pytest.raises(ConfigError, match=message):
        cells_of(study_file.parse("tiny", TINY.replace(*change)))


def test_an_unknown_study_is_answered_by_the_nearest():
    with pytest.raises(ConfigError, match=r"no study 'w21-tabel3' \(did you mean 'w21-table3'\?\)"):
        kshot.Study("w21-tabel3")


def test_cells_are_entries_by_datasets_by_grid_by_seeds():
    text = TINY.replace("data: [tiny]", "data: [tiny, glyphs]").replace(
        "options: {ways: 5}}\n  p", "grid: {ways: [3, 5], learner.normalize_over: [task]}}\n  p"
    )
    cells = cells_of(study_file.parse("tiny", text))
    assert len(cells) == 2 * (2 * 2 + 2)
    assert "mtl-tiny-ways3-normalize_overtask-seed0" in {cell.name for cell in cells}
    first = cells[0]
    assert first.options["training"]["ways"] == 3
    assert first.options["backbone"] | {"width": 8} == first.options["backbone"]
    assert first.options["data"] == {"name": "tiny"}
    assert len({(cell.training_key, cell.seed) for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", study_file.names())
def test_shipped_studies_are_complete(name):
    study = study_file.load(name)
    cells = cells_of(study, seeds=[0])
    if study.every_learner:
        trained = {cell.options["learner"]["name"] for cell in cells}
        assert trained == set(learners)
    if study.tables and not study.data:
        wanted = {
            (row["dataset"].split("/")[0], row["learner"], row["backbone"], row["ways"], row["shots"])
            for row in published_rows()
            if f"{row['paper']} {'text' if row['table'] == 'text' else 'table ' + row['table']}" in study.tables
        }
        shown = {
            (cell.dataset, *cell.row.split(", "), str(cell.measure["ways"]), str(cell.measure["shots"][0]))
            for cell in cells
        }
        assert wanted == shown


def test_a_budget_becomes_a_number_of_tasks():
    """10 min of 0.1 s per task, less a start of 1 s and ten validations of 4 s."""
    cell = cells_of(study_file.load("all-learners"), seeds=[0], data=["glyphs"])
    options = next(each for each in cell if each.options["learner"]["name"] == "tadam").options
    costs, budget = Costs(**COSTS | {"validation": 0.08}), Budget.parse("10min-per-cell")
    whole = length_of(options)
    short = shortened(options, costs, budget)
    epochs, tasks, _ = length_of(short)
    assert (epochs, tasks) == (10, (600 - 1 - 10 * 50 * 0.08) / 0.1 // 10)
    assert short["training"]["schedule"] == "cosine"
    ratio = epochs * tasks / (whole[0] * whole[1])
    assert short["learner"]["cotraining_tasks"] == pytest.approx(20_000 * ratio, rel=0.01)
    assert costs.training(short) == pytest.approx(600, abs=1)
    assert shortened(options, costs, Budget.parse("9000h-per-cell")) == options
    with pytest.raises(ConfigError, match="too short"):
        shortened(options, costs, Budget.parse("20s-per-cell"))


def test_a_study_runs_to_its_end_and_is_not_run_again(tiny, monkeypatch):
    assert tiny.status().count("waiting") == 4
    assert run_here(tiny, monkeypatch, cells="mtl*").done == ["mtl-seed0", "mtl-seed1"]
    assert "This study is unfinished: 4 cells: 2 done, 2 waiting" in tiny.report().read_text()
    assert run_here(tiny, monkeypatch).done == ["protonet-seed0", "protonet-seed1"]
    assert tiny.status().complete
    assert run_here(tiny, monkeypatch).done == []
    result = tiny.cell_folder(tiny.cells[0]).result()
    assert (result["tasks"], result["epochs"], result["sittings"]) == (8, 2, 1)
    assert result["images"] == 8 * 5 * (5 + 2)
    page = tiny.report().read_text()
    assert "unfinished" not in page
    run = kshot.Run(tiny.cell_folder(tiny.cells[0]).run_path)
    other = kshot.Run(tiny.cell_folder(tiny.cells[1]).run_path)
    per_task = np.mean([each.evaluations[0].values for each in (run, other)], axis=0)
    assert f"{100 * per_task.mean():.2f} ± " in page
    lines = (tiny.folder / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    for file in ("table.md", "table.tex", "paired.csv"):
        assert (tiny.folder / file).exists()
    assert r"\toprule" in (tiny.folder / "table.tex").read_text()


def test_a_folder_of_another_study_is_refused(tiny, tmp_path, monkeypatch):
    run_here(tiny, monkeypatch, cells="mtl-seed0")
    other = kshot.Study(tmp_path / "tiny.yaml", folder=tiny.folder, root=tiny.root, budget="1h-per-cell")
    with pytest.raises(ConfigError, match="holds a study tiny with other budget"):
        run_here(other, monkeypatch)


def test_missing_data_and_reports_of_nothing_are_said(tiny, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no cell of tiny is done .*kshot study run"):
        tiny.report()
    study = kshot.Study("w21-table4", folder=tmp_path / "missing", root=tmp_path)
    with pytest.raises(DataError, match=r"mini-imagenet: .*kshot data prepare mini-imagenet"):
        run_here(study, monkeypatch)
    assert "kshot data prepare mini-imagenet" in str(study.plan(trial_seconds=0))
    for seconds in (-1, 1e20, float("nan")):
        with pytest.raises(ConfigError, match="choose 0 to 3600, of which a few are enough"):
            study.plan(trial_seconds=seconds)


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(tiny, monkeypatch):
    train = kshot.studies.cell.train_cell

    def diverging(cell, *args, **options):
        if cell.entry == "mtl":
            raise DivergenceError("the loss is nan")
        return train(cell, *args, **options)

    monkeypatch.setattr("kshot.studies.cell.train_cell", diverging)
    outcome = run_here(tiny, monkeypatch, retries=3)
    assert (outcome.failed, len(outcome.done)) == (["mtl-seed0", "mtl-seed1"], 2)
    assert tiny.cell_folder(tiny.cells[0]).failure() | {"place": ""} == {
        "message": "the loss is nan", "lasting": True, "attempts": 1, "place": "",
    }  # fmt: skip
    assert "mtl-seed0 failed: the loss is nan" in tiny.report().read_text()
    monkeypatch.setattr("kshot.studies.cell.train_cell", train)
    assert run_here(tiny, monkeypatch).done == []
    assert run_here(tiny, monkeypatch, retry_failed=True).done == ["mtl-seed0", "mtl-seed1"]


def jobs_of(study: kshot.Study) -> list[Job]:
    for cell in study.cells:
        study.cell_folder(cell).write(cell)
    return [Job(study.cell_folder(cell), cell.dataset) for cell in study.cells]


def test_killed_cells_are_tried_again_as_told(tiny):
    first = jobs_of(tiny)[:1]
    lines: list[str] = []
    engine = InProcess(tiny.root, [-9, None])  # killed, then its machine is lost, then it runs
    outcome = run_jobs(first, engine, retries=2, say=lines.append, tick=lambda: None)
    assert outcome.done == ["mtl-seed0"]
    assert engine.started[-1].avoid == {"place 1", "place 2"}
    assert [line.split()[0] for line in lines] == ["again", "again", "done"]
    second = jobs_of(tiny)[1:2]
    outcome = run_jobs(second, InProcess(tiny.root, [-9, -9]), retries=1, say=lines.append, tick=lambda: None)
    assert outcome.failed == ["mtl-seed1"]
    assert "out of memory" in second[0].folder.failure()["message"]


def test_a_full_disk_and_a_lack_of_memory_may_pass(tiny, monkeypatch):
    folder = jobs_of(tiny)[0].folder
    for error, message in [(OSError(28, "No space left on device"), "disk is full"), (MemoryError(), "not enough mem")]:
        monkeypatch.setattr("kshot.studies.cell.train_cell", lambda *args, error=error, **options: raising(error))
        assert run_cell(folder, root=tiny.root) == FAILED
        failure = folder.failure()
        assert message in failure["message"]
        assert not failure["lasting"]


def raising(error: Exception) -> None:
    raise error


def test_a_cell_has_one_worker_and_one_version(tiny, capsys):
    folder = jobs_of(tiny)[0].folder
    assert run_cell(folder, root=tiny.root, expect="0.1.0@abc") == OTHER_VERSION
    assert "the study runs 0.1.0@abc" in capsys.readouterr().err
    assert not folder.sittings()
    held = lock.filelock.FileLock(folder.path / lock.LOCK, is_singleton=False)
    with held:
        assert run_cell(folder, root=tiny.root) == TAKEN
        assert folder.progress().state == "running"
    assert run_cell(folder, root=tiny.root, expect=version()) == DONE


def test_damaged_files_of_a_cell_are_named(tiny):
    folder = jobs_of(tiny)[0].folder
    (folder.path / "cell.yaml").write_text("entry: [")
    assert run_cell(folder, root=tiny.root) == FAILED
    assert "cell.yaml is damaged" in folder.failure()["message"]
    (folder.path / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"result\.json is damaged"):
        folder.result()


def test_engines_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("kshot.studies.engines.find_spec", lambda name: None)
    for name, (_, _, package) in ENGINES.items():
        if package is not None:
            with pytest.raises(ConfigError, match=re.escape(f"pip install 'kshot[{name}]'")):
                create_engine(name, EngineOptions(), root=None, version="")
    with pytest.raises(ConfigError, match="choose one of: local, ray, slurm"):
        create_engine("cloud", EngineOptions(), root=None, version="")


def test_a_simulated_schedule_starts_the_longest_first(tiny):
    plan = tiny.plan()
    cells = [replace(cell, seconds=seconds) for cell, seconds in zip(plan.cells, [1.0, 4.0, 2.0, 3.0])]
    found = simulate(replace(plan, cells=cells), workers=2)
    assert (found.seconds, found.work, found.longest_seconds, found.idle) == (5.0, 10.0, 4.0, 0.0)
    assert simulate(replace(plan, cells=cells), workers=8).seconds == 4.0
    assert "4 cells, 28 s of processor time" in str(plan)  # 1 + 0.8 + 0.08 + 5 for measuring, each


def test_numbers_and_their_published_values():
    tasks = np.array([0.2, 0.4, 0.6, 0.8])
    one = Number({0: tasks, 1: tasks + 0.1}, "d", Published("Z21", "2", 60.0, 1.0, ""))
    assert text_of(one) == "55.00 ± 41.09 (± 63.53)"  # Student's t, 3 and 1 degrees of freedom
    assert verdict_of(one) == "-5.00, intervals meet"
    narrow = replace(one, values={0: np.full(4, 0.5)})
    assert verdict_of(narrow) == "-10.00, intervals do not meet"
    assert verdict_of(replace(one, published=Published("Z21", "2", 60.0, None, ""))) == "-5.00"
    assert verdict_of(replace(one, published=None)) == ""


def test_pairs_are_of_equal_tasks_and_corrected_together():
    generator = np.random.default_rng(0)
    hard = generator.normal(0.5, 0.1, 50)
    numbers = {
        "a": Number({0: hard}, "d"),
        "b": Number({0: hard + generator.normal(0.05, 0.02, 50)}, "d"),
        "c": Number({0: hard + generator.normal(0.004, 0.02, 50)}, "d"),
        "other tasks": Number({0: hard}, "e"),
    }
    pairs = {(pair.first, pair.second): pair for pair in pairs_of(Column("x", 5, 1), numbers)}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "b"].significant
    assert pairs["a", "b"].difference < 0
    smallest, middle, largest = sorted(pair.p for pair in pairs.values())
    assert sorted(pair.corrected for pair in pairs.values()) == pytest.approx(
        [3 * smallest, max(3 * smallest, 2 * middle), max(2 * middle, largest)]
    )


def test_the_page_of_a_study_escapes_what_it_shows(tiny, monkeypatch):
    run_here(tiny, monkeypatch, cells="mtl-seed0")
    object.__setattr__(tiny.file, "title", "<script>alert(1)</script>")
    page = tiny.report().read_text()
    assert "<script>" not in page
    assert "https://" not in page


def test_the_command_says_what_it_does(say, tmp_path, tiny_root, monkeypatch):
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: TRIAL)
    write_text(tmp_path / "tiny.yaml", TINY)
    monkeypatch.setattr("kshot.studies.study.create_engine", lambda *args, root, **more: InProcess(root))
    common = [str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "study"), "--root", str(tiny_root)]
    code, out, _ = say("study", "plan", *common, "--simulate", "--workers", "2")
    assert (code, "4 cells on 2 workers" in out) == (0, True)
    code, out, _ = say("study", "run", *common, "--cells", "mtl-seed0")
    assert (code, "done     mtl-seed0" in out, "4 cells: 1 done, 3 waiting" in out) == (0, True, True)
    code, out, _ = say("study", "status", *common)
    assert (code, bool(re.search(r"mtl-seed0 +done +100 %", out))) == (0, True)
    code, out, _ = say("study", "report", *common)
    assert (code, "report.html" in out) == (0, True)
    code, _, err = say("study", "run", *common, "--cells", "nothing*")
    assert (code, "no cell that matches 'nothing*'" in err) == (2, True)
    code, _, err = say("study", "repotr")
    assert (code, "did you mean 'report'" in err) == (2, True)
    assert json.loads((tmp_path / "study" / "estimates.json").read_text())["mtl-seed0"]["recipe_images"] == 160


def test_a_cell_folder_without_a_run_waits(tmp_path):
    assert CellFolder(tmp_path / "nothing").progress().state == "waiting"
