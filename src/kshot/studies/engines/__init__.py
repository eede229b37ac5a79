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
_OPTIONS_OF = {"ray": ("address", "seconds_between_copies"), "slurm": ("partition", "hours", "slurm_local")}


def create_engine(name: str, options: EngineOptions, *, root: Path | str | None, version: str) -> Engine:
    """The engine of this name.

    Raises
    ------
    ConfigError
        If there is none, its package is not installed, or an option of another engine is given.
    """
    check_choice("engine", name, tuple(ENGINES))
    for other, of_other in _OPTIONS_OF.items():
        for option in of_other:
            if other != name and getattr(options, option) != getattr(EngineOptions, option):
                raise ConfigError(
                    f"{option} is an option of the engine {other}, and the engine is {name}; choose engine {other}, or "
                    "leave it out"
                )
    module, cls, package = ENGINES[name]
    if package is not None and find_spec(package) is None:
        raise ConfigError(f"the engine {name} needs the package {package}: pip install 'kshot[{name}]'")
    engine: type[Engine] = getattr(import_module(module), cls)
    return engine(options, root=root, version=version)
