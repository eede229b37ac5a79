"""Cells on the nodes of a Ray cluster, which need not share a disk: the folders of cells travel.

A cell is sent to a node as bytes. Its checkpoints come back to the machine of the study while it runs, so that a cell
whose node is lost goes on from its last copy on another one.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # cells are what the machine is for

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.errors import ConfigError, DataError
from kshot.files import cache_root
from kshot.runs import lock
from kshot.studies.cell import TAKEN, version
from kshot.studies.cell_folder import CellFolder
from kshot.studies.engines.base import Ended, Engine, EngineOptions, Job
from kshot.studies.engines.packing import last_change, pack, unpack
from kshot.studies.engines.process import run_process

_SECONDS_FOR_A_PROBE = 600  # of which importing torch on a busy machine takes most
_SECONDS_BETWEEN_QUESTIONS = 1.0  # whether to stop


@dataclass
class _Node:
    """A node of the cluster."""

    id: str
    place: str
    slots: int
    datasets: frozenset[str]
    free_megabytes: float
    refusal: str = ""


class Depot:
    """Lives where the study is: writes what nodes send, and tells them to stop."""

    def __init__(self) -> None:
        self._stopped = False

    def put(self, folder: str, content: bytes) -> None:
        """Keep a copy of a cell."""
        unpack(content, Path(folder))

    def stop(self) -> None:
        """Let all cells save themselves and end."""
        self._stopped = True

    def stopped(self) -> bool:
        """Whether cells are to end."""
        return self._stopped


def _probe(root: str | None) -> dict[str, Any]:
    """What a node is: its version of kshot, its prepared datasets, its free disk."""
    folder = cache_root(root)
    prepared = [place.parent.name for place in folder.glob("[!.]*/meta.json")]
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**20
    return {"version": version(), "host": socket.gethostname(), "datasets": prepared, "free": free}


def _work(
    content: bytes, home: str, depot: Any, *, root: str | None, version: str, threads: int, place: str, seconds: float
) -> tuple[int, str, bytes]:
    """Run a cell on this node, send copies home, and return the exit code, the last words and the folder."""
    with tempfile.TemporaryDirectory(prefix="kshot-cell-") as scratch:
        folder = Path(scratch) / Path(home).name
        unpack(content, folder)
        sent, copied, asked = last_change(folder), time.monotonic(), time.monotonic()

        def between() -> bool:
            nonlocal sent, copied, asked
            now = time.monotonic()
            if now - copied >= seconds and (changed := last_change(folder)) > sent:
                ray.get(depot.put.remote(home, pack(folder)))
                sent, copied = changed, now
            if now - asked < _SECONDS_BETWEEN_QUESTIONS:
                return False
            asked = now
            return bool(ray.get(depot.stopped.remote()))

        code, words = run_process(folder, root=root, version=version, threads=threads, place=place, between=between)
        return code, words, pack(folder)


class RayCluster(Engine):
    """An existing cluster by its address, or one that is started on this machine."""

    def __init__(self, options: EngineOptions, *, root: Path | str | None, version: str) -> None:
        super().__init__(options, root=root, version=version)
        self._started = not ray.is_initialized()
        if self._started:
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
            local = {} if options.address is not None else {"include_dashboard": False}
            try:
                ray.init(address=options.address, **local, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"no Ray cluster is at {options.address!r} ({error}); check the address") from error
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._depot = ray.remote(Depot).options(num_cpus=0, scheduling_strategy=here).remote()
        self._work = ray.remote(_work)
        self._nodes = self._probed()
        self._running: dict[Any, tuple[Job, _Node, ExitStack]] = {}
        self._over: list[Ended] = []
        self.refused = {node.place: node.refusal for node in self._nodes if node.refusal}
        if len(self.refused) == len(self._nodes):
            raise ConfigError("no node of the cluster can be used: " + "; ".join(self.refused.values()))

    def _probed(self) -> list[_Node]:
        """What each node is; one with another version of kshot is refused."""
        asked, root = [], None if self.root is None else str(self.root)
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
                at = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                probe = ray.remote(_probe).options(num_cpus=0, scheduling_strategy=at, max_retries=0)
                asked.append((node, probe.remote(root)))
        nodes = []
        for node, answer in asked:
            resources = node["Resources"]
            slots = int(resources["CPU"]) // self.options.threads
            if self.options.gpus:
                slots = min(slots, int(resources.get("GPU", 0)) // self.options.gpus)
            place = f"{node['NodeName']} ({node['NodeID'][:6]})"
            try:
                found = ray.get(answer, timeout=_SECONDS_FOR_A_PROBE)
            except (ray.exceptions.RayError, TimeoutError) as error:
                refusal = f"{place} cannot run kshot ({str(error).strip().splitlines()[-1]})"
                nodes.append(_Node(node["NodeID"], place, 0, frozenset(), 0.0, refusal))
                continue
            refusal = ""
            if found["version"] != self.version:
                refusal = (
                    f"{place} has kshot {found['version']}, and the study runs {self.version}; install the same there"
                )
            nodes.append(_Node(node["NodeID"], place, slots, frozenset(found["datasets"]), found["free"], refusal))
        return nodes

    def start(self, job: Job) -> bool:
        """Send a cell to a node that has its data, room for it, and did not fail it before."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        usable = [node for node in self._nodes if not node.refusal and node.id in alive and node.slots > 0]
        fitting = [node for node in usable if _has(node, job.dataset) and node.free_megabytes >= 3 * job.megabytes]
        if not fitting:
            raise DataError(
                f"no node of the cluster can run {job.folder.name}: "
                + "; ".join(_lack(node, job) for node in usable or self._nodes)
            )
        others = [node for node in fitting if node.place not in job.avoid] or fitting
        taken = [node.id for _, node, _ in self._running.values()]
        free = [node for node in others if taken.count(node.id) < node.slots]
        if not free or (self.options.workers and len(taken) >= self.options.workers):
            return False
        node = min(free, key=lambda node: taken.count(node.id) / node.slots)
        held = ExitStack()
        try:  # so that no runner of this machine takes it, too
            held.enter_context(lock.locked(job.folder.path, doing=f"being worked at on {node.place}"))
        except ConfigError as error:
            self._over.append(Ended(job.folder.name, TAKEN, node.place, str(error)))
            return True
        at = NodeAffinitySchedulingStrategy(node.id, soft=False)
        reference = self._work.options(
            num_cpus=self.options.threads, num_gpus=self.options.gpus, scheduling_strategy=at, max_retries=0
        ).remote(
            pack(job.folder.path),
            str(job.folder.path.absolute()),
            self._depot,
            root=None if self.root is None else str(self.root),
            version=self.version,
            threads=self.options.threads,
            place=node.place,
            seconds=self.options.seconds_between_copies,
        )
        self._running[reference] = (job, node, held)
        return True

    def ended(self) -> list[Ended]:
        """The cells that have ended, their folders brought back; those of lost nodes have their last copy."""
        over, self._over = self._over, []
        if not self._running:
            return over
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for reference in ready:
            job, node, held = self._running.pop(reference)
            with held:
                over.append(self._settled(reference, job.folder, node))
        return over

    def _settled(self, reference: Any, folder: CellFolder, node: _Node) -> Ended:
        try:
            code, words, content = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # the node failed, and not the cell: a full disk, for instance
            message = str(error.cause or error).strip().splitlines()[-1]
            folder.fail(f"on {node.place}: {message}", lasting=False, place=node.place)
            return Ended(folder.name, 1, node.place, message)
        except ray.exceptions.RayError:
            return Ended(folder.name, None, node.place)
        unpack(content, folder.path)
        if code == 0:
            folder.forget_failure()
        return Ended(folder.name, code, node.place, words)

    def stop(self) -> None:
        """Let all cells save themselves, bring them back, and leave the cluster."""
        if self._running:
            ray.get(self._depot.stop.remote())
            while self._running:
                self.ended()
                time.sleep(_SECONDS_BETWEEN_QUESTIONS / 5)
        if self._started and ray.is_initialized():
            ray.shutdown()


def _has(node: _Node, dataset: str) -> bool:
    """Whether a dataset can be loaded on a node."""
    source = SOURCES.get(dataset)
    return dataset in node.datasets or dataset in FAMILIES or (source is not None and source.automatic)


def _lack(node: _Node, job: Job) -> str:
    """Why a node cannot run a cell."""
    if node.refusal:
        return node.refusal
    if not _has(node, job.dataset):
        return f"{node.place} has no {job.dataset}; prepare it there (kshot data prepare {job.dataset})"
    if node.free_megabytes < 3 * job.megabytes:
        return (
            f"the disk of {node.place} has {node.free_megabytes:.0f} MiB left, and {3 * job.megabytes:.0f} are needed"
        )
    return f"{node.place} is lost"
