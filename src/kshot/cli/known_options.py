"""Which options a command has, by name alone: an unknown one is answered with what it may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kshot.cli.help_texts import NAME
from kshot.errors import ConfigError


@dataclass
class KnownOptions:
    """The options of one command.

    Attributes
    ----------
    command
        What the user types, for messages.
    keys
        The options, as in ``learner.inner_rate``, in their order.
    choices
        By prefix, as in ``learner``: the part that was chosen, and the options of all parts that could have been.
    """

    command: str
    keys: dict[str, None] = field(default_factory=dict)
    choices: dict[str, tuple[str, Mapping[str, Iterable[str]]]] = field(default_factory=dict)

    def key_of(self, option: str) -> str:
        """The key of an option as it is typed, such as `--training.max-epochs` or `--learner`; ConfigError for none."""
        key = option.lstrip("-").replace("-", "_").removeprefix("training.")
        if key + NAME in self.keys:
            key += NAME
        if key != "help":
            self.check(key, option)
        return key

    def check(self, key: str, shown: str) -> None:
        """ConfigError for a key that the command has not; `shown` is what the message calls it."""
        if key in self.keys:
            return
        prefix = key.rpartition(".")[0]
        chosen_name = self.choices[prefix][0] if prefix in self.choices else None
        command = f"{self.command} --{prefix} {chosen_name}" if chosen_name else self.command
        raise ConfigError(f"there is no option {shown}; {self._meant(key)}{command} --help lists all options")

    def _meant(self, key: str) -> str:
        """What an unknown option may have meant: one of another part, of another prefix, or close to it in its own."""
        prefix, _, name = key.rpartition(".")
        chosen_name, names = self.choices.get(prefix, ("", {}))
        having = sorted(other for other, options in names.items() if name in options)
        if having:
            return f"{chosen_name} has none of this name, but {', '.join(having)}; "
        known = [other.removesuffix(NAME) for other in self.keys]
        close = [other for other in known if other.rpartition(".")[2] == name]
        if not close:  # a learner's rate is not the rate of training: names are compared within one prefix
            siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == prefix}
            close = [siblings[near] for near in difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)]
        return f"did you mean --{close[0].replace('_', '-')}? " if close else ""
