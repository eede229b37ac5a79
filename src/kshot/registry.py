"""Names for parts: what the command line, recipes, saved runs and contract tests know a learner or a backbone by.

The constructor's signature is the configuration. A registered class remembers the options that it was built with, so
that any instance, made by hand in a notebook or from a recipe, can be written to config.yaml and built again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from kshot.errors import ConfigError

T = TypeVar("T")

# what a class without a constructor of its own has in its signature
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Registry(Mapping[str, type[T]], Generic[T]):
    """A mapping from names to classes; ``@registry.register("name")`` adds one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as `name`, and have its instances keep ``.options``."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            self._classes[name] = cls
            _remember_options(cls)
            return cls

        return add

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise ConfigError(f"there is no {self.kind} {name!r}; choose one of: {', '.join(sorted(self._classes))}")
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def name_of(self, instance: object) -> str:
        """The registered name of an instance's class, or ConfigError."""
        for name, cls in self._classes.items():
            if type(instance) is cls:
                return name
        raise ConfigError(
            f"{type(instance).__name__} is not a registered {self.kind}: decorate the class with "
            f"@{self.kind}s.register('name') so that a run can be saved and built again"
        )


def _remember_options(cls: Any) -> None:
    """Wrap ``cls.__init__`` so that ``self.options`` holds every constructor argument, defaults included."""
    original = cls.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        original(self, *args, **kwargs)
        if type(self) is cls:
            own = [name for name, parameter in signature.parameters.items() if parameter.kind not in _VARIADIC]
            self.options = {name: bound.arguments[name] for name in own[1:]}

    cls.__init__ = init
