"""Engines: killed cells and lost nodes go on from their checkpoint, with the numbers of an undisturbed run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import kshot
from kshot.errors import ConfigError, DataError
from kshot.files import write_text
from kshot.runs import lock
from kshot.studies import EngineOptions
from kshot.studies import plan as plans
from kshot.studies.cell import run_cell, version
from kshot.studies.cell_folder import CellFolder
from kshot.studies.engines.base import Job
from kshot.studies.engines.local import Local
from kshot.studies.engines.packing import last_change, pack, unpack

EPOCHS = 8
STUDY = f"""
common: {{validation_tasks: 20, backbone.width: 8, meta_batch: 2, tasks_per_epoch: 20, max_epochs: {EPOCHS}, queries: 2,
         validation_queries: 2, ways: 5}}
data: [tiny]
cells:
  mtl: {{recipe: mtl-cifar-fs-5shot-conv4}}
measure: {{ways: 5, queries: 2, tasks: 12}}
"""
COSTS = {"start": 1, "task": 0.1, "validation": 0.01, "measuring": 5, "memory": 100, "disk": 2}
TRIAL = {"on": "its data", "costs": COSTS, "max_epochs": EPOCHS, "tasks_per_epoch": 20, "images_per_task": 20}


def study_of(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, seeds: int = 1) -> kshot.Study:
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: TRIAL)
    write_text(folder / "engines.yaml", STUDY)
    return kshot.Study(folder / "engines.yaml", folder=folder / "study", root=root, seeds=range(seeds))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> kshot.Study:
    """The cells as one process runs them from end to end."""
    with pytest.MonkeyPatch.context() as patch:
        study = study_of(tmp_path_factory.mktemp("undisturbed"), tiny_root, patch, seeds=4)
    for cell in study.cells:
        study.cell_folder(cell).write(cell)
        assert run_cell(study.cell_folder(cell), root=tiny_root) == 0
    return study


def check_equal(study: kshot.Study, undisturbed: kshot.Study) -> None:
    """Every cell is done, with the bytes of the undisturbed one."""
    assert study.status().complete, study.status()
    for cell in study.cells:
        mine, other = (each.cell_folder(cell).run_path for each in (study, undisturbed))
        for file in ("metrics.csv", "checkpoints/best.pt", "config.yaml"):
            assert (mine / file).read_bytes() == (other / file).read_bytes(), (cell.name, file)
        for one, two in zip(kshot.Run(mine).evaluations, kshot.Run(other).evaluations, strict=True):
            assert one.values.tolist() == two.values.tolist()


def test_a_folder_travels_as_bytes(tmp_path):
    folder = tmp_path / "cell"
    for name in ("run/checkpoints/last.pt", "run/checkpoints/best.pt", "cell.yaml", lock.LOCK, ".best.pt.vm.1.tmp"):
        write_text(folder / name, name)
    content = pack(folder)
    unpack(content, tmp_path / "other")
    arrived = {str(path.relative_to(tmp_path / "other")) for path in (tmp_path / "other").rglob("*") if path.is_file()}
    assert arrived == {"run/checkpoints/last.pt", "run/checkpoints/best.pt", "cell.yaml"}
    assert last_change(tmp_path / "other") > 0


def test_a_copy_never_promises_more_than_it_holds(tmp_path, monkeypatch):
    """A training writes best.pt and then last.pt; a copy that is made in between has the older last.pt."""
    folder = tmp_path / "cell"
    write_text(folder / "run/best.pt", "1")
    write_text(folder / "run/last.pt", "1")
    read = Path.read_bytes

    def read_while_training(path: Path) -> bytes:
        content = read(path)
        write_text(folder / "run/best.pt", "2")
        write_text(folder / "run/last.pt", "2")
        return content

    monkeypatch.setattr(Path, "read_bytes", read_while_training)
    content = pack(folder)
    monkeypatch.undo()
    unpack(content, tmp_path / "other")
    assert (tmp_path / "other/run/last.pt").read_text() == "1"
    assert (tmp_path / "other/run/best.pt").read_text() == "2"


def test_a_copy_that_leads_out_of_its_folder_is_refused(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../b"))
    with pytest.raises(DataError, match=r"\.\./b leads out of"):
        unpack(content.getvalue(), tmp_path / "x" / "y")
    assert not (tmp_path / "x" / "b").exists()


def test_a_damaged_copy_is_refused(tmp_path):
    write_text(tmp_path / "cell/a", "x")
    content = pack(tmp_path / "cell")
    with pytest.raises(DataError, match="damaged"):
        unpack(b"\1" * 512 + content[512:], tmp_path / "x")


@pytest.mark.slow
def test_a_killed_cell_goes_on_to_the_bit(undisturbed, tmp_path, tiny_root, monkeypatch):
    study = study_of(tmp_path, tiny_root, monkeypatch)
    killed: list[int] = []

    def kill_once(status: Any) -> None:
        folder = study.cell_folder(study.cells[0])
        if not killed and (folder.run_path / "checkpoints" / "last.pt").exists():
            killed.append(yaml.safe_load((folder.path / lock.HOLDER).read_text())["process"])
            os.kill(killed[0], signal.SIGKILL)

    lines: list[str] = []
    study.run(options=EngineOptions(workers=1), say=lines.append, tick=kill_once)
    assert len(killed) == 1
    assert "again    mtl-seed0: it was ended by signal 9; out of memory, if nobody ended it" in lines
    result = study.cell_folder(study.cells[0]).result()
    assert (result["sittings"], result["seconds"]) == (2, None)
    check_equal(study, undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_cells_end_with_a_study_that_is_killed(by, undisturbed, tmp_path, tiny_root, monkeypatch):
    """They save themselves, so that the same command goes on at once."""
    study = study_of(tmp_path, tiny_root, monkeypatch)
    folder = study.cell_folder(study.cells[0])
    words = [sys.executable, "-m", "kshot", "study", "run", study.typed, "--out", str(study.folder), "--workers", "1"]
    runner = subprocess.Popen([*words, "--root", str(tiny_root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (folder.run_path / "checkpoints" / "last.pt").exists():
            assert runner.poll() is None
            time.sleep(0.02)
    finally:
        runner.send_signal(by)
        runner.wait()
    until = time.monotonic() + 60
    while folder.progress().state == "running" and time.monotonic() < until:
        time.sleep(0.05)
    assert folder.progress().state == "begun"
    study.run(options=EngineOptions(workers=2), say=lambda line: None)
    check_equal(study, undisturbed)


@pytest.mark.slow
def test_ctrl_c_leaves_everything_resumable(undisturbed, tmp_path, tiny_root, monkeypatch):
    study = study_of(tmp_path, tiny_root, monkeypatch)

    def press(status: Any) -> None:
        if (study.cell_folder(study.cells[0]).run_path / "checkpoints" / "last.pt").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(options=EngineOptions(workers=1), say=lambda line: None, tick=press)
    progress = study.cell_folder(study.cells[0]).progress()
    assert (progress.state, 0 < progress.share < 1) == ("begun", True)
    study.run(options=EngineOptions(workers=1), say=lambda line: None)
    check_equal(study, undisturbed)


@pytest.mark.slow
def test_a_lost_node_of_ray_loses_nothing(undisturbed, tmp_path, tiny_root, monkeypatch):
    """Three nodes that share no disk for cells; one is taken away while its cell is between two checkpoints."""
    ray = pytest.importorskip("ray", reason="pip install 'kshot[ray]'")
    from ray.cluster_utils import Cluster

    study = study_of(tmp_path, tiny_root, monkeypatch, seeds=4)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    taken: list[str] = []

    def take_away(status: Any) -> None:
        for cell in study.cells:
            folder = study.cell_folder(cell)
            begun = (folder.run_path / "checkpoints" / "last.pt").exists() and not folder.result_path.exists()
            if not taken and begun and folder.sittings():
                place = folder.sittings()[-1]["place"]
                lost = next(node for node in nodes if node.node_id[:6] in place)
                taken.append(place)
                cluster.remove_node(lost, allow_graceful=False)

    lines: list[str] = []
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        options = EngineOptions(seconds_between_copies=0.1)
        outcome = study.run(engine="ray", options=options, say=lines.append, tick=take_away)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(outcome.done) == sorted(cell.name for cell in study.cells)
    again = [line for line in lines if line.startswith("again")]
    assert len(taken) == 1
    assert again == [line for line in again if f"{taken[0]} is lost" in line] != []
    lost = again[0].split()[1].rstrip(":")
    sittings = CellFolder(study.folder / "cells" / lost).sittings()
    assert [each["place"] == taken[0] for each in sittings] == [True, False]
    check_equal(study, undisturbed)


@pytest.mark.slow
def test_nodes_of_another_version_or_without_the_data_are_named(tmp_path, tiny_root, monkeypatch):
    ray = pytest.importorskip("ray", reason="pip install 'kshot[ray]'")
    from kshot.studies.engines.ray_cluster import RayCluster

    study = study_of(tmp_path, tiny_root, monkeypatch)
    folder = study.cell_folder(study.cells[0])
    folder.write(study.cells[0])
    try:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        with pytest.raises(ConfigError, match=r"has kshot .* and the study runs 0\.0\.1@x; install the same there"):
            RayCluster(EngineOptions(), root=tiny_root, version="0.0.1@x")
        engine = RayCluster(EngineOptions(), root=tmp_path, version=version())
        with pytest.raises(DataError, match=r"has no tiny; prepare it there"):
            engine.start(Job(folder, "tiny"))
        engine = RayCluster(EngineOptions(), root=tiny_root, version=version())
        with pytest.raises(DataError, match=r"the disk of .* MiB left, and 3000000000 are needed"):
            engine.start(Job(folder, "tiny", megabytes=1e9))
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_jobs_of_slurm_run_cells(undisturbed, tmp_path, tiny_root, monkeypatch):
    pytest.importorskip("submitit", reason="pip install 'kshot[slurm]'")
    study = study_of(tmp_path, tiny_root, monkeypatch)
    options = EngineOptions(workers=1, slurm_local=True, hours=0.2)
    assert study.run(engine="slurm", options=options, say=print).done == ["mtl-seed0"]
    check_equal(study, undisturbed)
    assert list((study.folder / "slurm").iterdir())


def test_a_local_engine_has_as_many_places_as_it_is_told(tmp_path):
    engine = Local(EngineOptions(workers=1), root=None, version="none@none")
    jobs = [Job(CellFolder(tmp_path / name), "tiny") for name in "ab"]
    for job in jobs:
        job.folder.path.mkdir()
    assert engine.start(jobs[0])
    assert not engine.start(jobs[1])
    engine.stop()


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="no GPU"):
        Local(EngineOptions(gpus=1), root=None, version="")
