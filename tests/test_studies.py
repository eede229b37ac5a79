"""Studies: running, failing and resuming cells; what stands on their pages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_toys import TINY, TRIAL

import kshot
from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.files import write_text
from kshot.runs import lock
from kshot.studies import plan as plans
from kshot.studies.cell import DONE, FAILED, OTHER_VERSION, TAKEN, run_cell, version
from kshot.studies.cell_folder import CellFolder
from kshot.studies.engines import ENGINES, Ended, Engine, EngineOptions, Job, create_engine
from kshot.studies.scheduler import run_jobs
from kshot.studies.simulation import simulate


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
    assert "mtl-seed0 failed: the loss is nan (--retry-failed true tries again)" in tiny.report().read_text()
    assert "nan" not in (tiny.folder / "table.csv").read_text()
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
    found = simulate(replace(plan, cells=cells), options=EngineOptions(workers=2))
    assert (found.seconds, found.work, found.longest_seconds, found.idle) == (5.0, 10.0, 4.0, 0.0)
    assert simulate(replace(plan, cells=cells), options=EngineOptions(workers=8)).seconds == 4.0
    assert "4 cells, 28 s of processor time" in str(plan)  # 1 + 0.8 + 0.08 + 5 for measuring, each


def test_a_simulated_schedule_says_what_the_engine_adds(tiny):
    plan = tiny.plan()
    cells = [replace(cell, seconds=hours * 3600.0) for cell, hours in zip(plan.cells, [1, 4, 5, 9])]
    plan = replace(plan, cells=[replace(cell, costs=replace(cell.costs, disk=12.0)) for cell in cells])
    slurm = simulate(plan, engine="slurm", options=EngineOptions(workers=2, hours=4))
    assert slurm.note == "With jobs of 4 h, 2 cells are queued again, 7 jobs in all"
    ray = simulate(plan, engine="ray", options=EngineOptions(workers=3, seconds_between_copies=6))
    assert "every 6 s are at most 6 MiB/s" in str(ray)
    with pytest.raises(ConfigError, match="choose one of: local, ray, slurm"):
        simulate(plan, engine="cloud")


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
    code, out, _ = say("study", "plan", *common, "--simulate", "--workers", "2", "--engine", "ray")
    assert (code, "4 cells on 2 workers" in out, "MiB/s" in out) == (0, True, True)
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
