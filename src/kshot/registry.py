"""Names for parts: what the command line, recipes, saved runs and contract tests know a learner or a backbone by.

The constructor's signature is the configuration. A registered class remembers the options that it was built with, so
that every instance, made by hand in a notebook or from a recipe, can be written to config.yaml and built again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from kshot.errors import ConfigError, did_you_mean

T = TypeVar("T")

# the parameters in the signature of a class without a constructor of its own
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Registry(Mapping[str, type[T]], Generic[T]):
    """A mapping from names to classes, sorted by name; ``@registry.register("name")`` adds one.

    Parameters
    ----------
    kind
        What the classes are, in the singular, for messages: "learner".
    check
        Called with the name of a class and the constructor's arguments, by name, before an instance is built; raises
        ConfigError for arguments that no class of this kind can take. None for no check.
    """

    def __init__(self, kind: str, *, check: Callable[[str, Mapping[str, Any]], None] | None = None) -> None:
        self.kind = kind
        self._check = check
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as `name`, and have its instances keep ``.options``.

        A class that is defined again in the same place (module and qualified name), as when a notebook cell runs twice,
        replaces the earlier one.

        Raises
        ------
        ValueError
            Another class has this name.
        """

        def add(cls: type[T]) -> type[T]:
            known = self._classes.get(name)
            if known is not None and _place(known) != _place(cls):
                raise ValueError(
                    f"the {self.kind} {name!r} is {'.'.join(_place(known))}; register {'.'.join(_place(cls))} under "
                    "another name"
                )
            self._classes[name] = cls
            if known is not cls:
                self._remember_options(cls)
            return cls

        return add

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise ConfigError(
                f"there is no {self.kind} {name!r}; choose one of: {', '.join(self)}{did_you_mean(name, self)}"
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"{self.kind}s: {', '.join(self)}"

    def name_of(self, instance: object) -> str:
        """The name of an instance's class, or of the class that replaced it; ConfigError if there is none."""
        cls = type(instance)
        for known_as, known in self._classes.items():
            if known is cls:
                return known_as
        for known_as, known in self._classes.items():
            # the class of an instance that was built before its notebook cell ran again; not of an unregistered one
            if _place(known) == _place(cls) and "options" in vars(instance):
                return known_as
        raise ConfigError(
            f"{cls.__name__} is not a registered {self.kind}: decorate the class with "
            f"@{self.kind}s.register('name') so that a run can be saved and built again"
        )

    def _remember_options(self, cls: Any) -> None:
        """Wrap ``cls.__init__`` so that ``self.options`` holds every constructor argument, defaults included."""
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def init(instance: Any, *args: Any, **kwargs: Any) -> None:
            try:
                bound = signature.bind(instance, *args, **kwargs)
            except TypeError:
                original(instance, *args, **kwargs)  # whose own message names the class
                raise
            bound.apply_defaults()
            if self._check is not None:
                self._check(type(instance).__name__, bound.arguments)
            original(instance, *args, **kwargs)
            if type(instance) is cls:
                names = [name for name, parameter in signature.parameters.items() if parameter.kind not in _VARIADIC]
                instance.options = {name: bound.arguments[name] for name in names[1:]}

        cls.__init__ = init


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
