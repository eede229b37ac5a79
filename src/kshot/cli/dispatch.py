"""Commands that have commands of their own, such as `kshot data list`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kshot.errors import ConfigError, did_you_mean


def dispatch(
    command: str, arguments: Sequence[str], actions: Mapping[str, Callable[[Sequence[str]], None]], *, help_text: str
) -> None:
    """Call the action that the first word names with the other words; without any, print the help.

    Parameters
    ----------
    command
        What comes before the word, for messages: "kshot data".
    arguments
        The words after the command.
    actions
        What there is, by name.
    help_text
        What `--help` prints.

    Raises
    ------
    ConfigError
        If there is no action of this name.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(help_text, end="")
    elif name in actions:
        actions[name](rest)
    else:
        near = did_you_mean(name, actions)
        raise ConfigError(f"{command} has no command {name!r}{near}; choose one of: {', '.join(actions)}")
