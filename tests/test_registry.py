"""Names of classes: what a registry keeps, replaces and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kshot.errors import ConfigError, check_not_negative, check_positive, check_rate
from kshot.registry import Registry

CELL = """
@registry.register("own")
class Own:
    def __init__(self, size=1, *, name="a"):
        self.size = size * FACTOR
"""


def run_cell(registry: Registry[Any], factor: int, module: str = "__main__") -> Any:
    """What a notebook does when a cell is run."""
    names = {"registry": registry, "FACTOR": factor, "__name__": module}
    exec(CELL, names)
    return names["Own"]


def test_a_cell_that_runs_again_replaces_its_class() -> None:
    registry: Registry[Any] = Registry("learner")
    early = run_cell(registry, 1)(3)
    latest = run_cell(registry, 10)
    assert registry["own"] is latest
    assert len(registry) == 1
    assert registry["own"](2).size == 20
    for instance in (early, latest(3)):
        assert registry.name_of(instance) == "own", "what was built before is still known"
        assert instance.options == {"size": 3, "name": "a"}


def test_another_class_of_the_same_name_is_refused() -> None:
    registry: Registry[Any] = Registry("learner")
    first = run_cell(registry, 1)
    with pytest.raises(
        ValueError, match=r"the learner 'own' is __main__.Own; register elsewhere.Own under another name"
    ):
        run_cell(registry, 1, module="elsewhere")
    assert registry["own"] is first


def test_a_subclass_that_is_not_registered_has_no_name() -> None:
    registry: Registry[Any] = Registry("learner")
    own = run_cell(registry, 1)

    class Derived(own):
        pass

    with pytest.raises(ConfigError, match=r"Derived is not a registered learner: .* @learners.register"):
        registry.name_of(Derived())


def test_names_are_sorted_and_a_misspelt_one_is_answered_with_the_closest() -> None:
    registry: Registry[Any] = Registry("learner")
    for name in ("reptile", "maml", "ProtoNet"):
        registry.register(name)(type(name, (), {}))
    assert list(registry) == ["ProtoNet", "maml", "reptile"]
    assert repr(registry) == "learners: ProtoNet, maml, reptile"
    with pytest.raises(ConfigError, match=r"no learner 'protonett'; choose one of: .* \(did you mean 'ProtoNet'\?\)"):
        registry["protonett"]
    with pytest.raises(ConfigError, match=r"no learner 'xyz'; choose one of: ProtoNet, maml, reptile$"):
        registry["xyz"]


def test_arguments_are_checked_before_the_constructor_runs() -> None:
    seen = []

    def check(name: str, arguments: Any) -> None:
        seen.append((name, arguments["size"]))
        if arguments["size"] < 0:
            raise ConfigError("size")

    registry: Registry[Any] = Registry("learner", check=check)
    own = run_cell(registry, 1)
    with pytest.raises(ConfigError):
        own(-1)
    assert own(2).size == 2
    assert seen == [("Own", -1), ("Own", 2)]
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'sise'"):
        own(sise=2)


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (check_positive, 1e-9, 0, "must be positive"),
        (check_positive, (1, 2), (1, -1), "is -1, but must be positive"),
        (check_positive, [1], [], "is empty; give at least one value"),
        (check_not_negative, 0, -1e-9, "must be at least 0"),
        (check_rate, 0, 1, "must be at least 0 and below 1"),
        (check_rate, (0.0, 0.999), (0.1, -0.4), "is -0.4, but must be at least 0 and below 1"),
    ],
)
def test_numbers_are_checked_by_the_name_of_their_option(check: Any, good: Any, bad: Any, message: str) -> None:
    check(width=good, depth=good)
    for value in (bad, float("nan")):
        with pytest.raises(ConfigError, match=message if value is bad else "depth is nan"):
            check(width=good, depth=value)
