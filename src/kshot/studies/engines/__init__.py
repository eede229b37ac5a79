"""What runs the cells of a study: processes of this machine, a Ray cluster, or SLURM."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kshot.errors import ConfigError, check_choice
from kshot.studies.engines.base import Ended, Engine, EngineOptions, Job

__all__ = ["ENGINES", "Ended", "Engine", "EngineOptions", "Job", "create_engine"]

# by name: the module and the class, and what has to be installed
ENGINES = {
    "local": ("kshot.studies.engines.local", "Local", None),
    "ray": ("kshot.studies.engines.ray_cluster", "RayCluster", "ray"),
    "slurm": ("kshot.studies.engines.slurm", "Slurm", "submitit"),
}


def create_engine(name: str, options: EngineOptions, *, root: Path | str | None, version: str) -> Engine:
    """The engine of this name; ConfigError if there is none, or its package is not installed."""
    check_choice("engine", name, tuple(ENGINES))
    module, cls, package = ENGINES[name]
    if package is not None and find_spec(package) is None:
        raise ConfigError(f"the engine {name} needs the package {package}: pip install 'kshot[{name}]'")
    engine: type[Engine] = getattr(import_module(module), cls)
    return engine(options, root=root, version=version)
