"""YAML files of options, with their own checksum in the last line: config.yaml and stages.yaml."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kshot.errors import CheckpointError
from kshot.files import read_text, refusal, write_text

ADVICE = "put the file back as training wrote it, or train the run again"
_LARGEST = 1 << 20  # bytes
_CHECKSUM = re.compile(r"# checksum ([0-9a-f]{64}) .*\n\Z")


class _PlainDumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice, and not as a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """Refuses references, a few lines of which can stand for more values than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references, which kshot does not write")
        return super().compose_node(parent, index)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write options by section, with their checksum in the last line; OSError if that fails."""
    text = yaml.dump(dict(content), Dumper=_PlainDumper, sort_keys=False)
    write_text(path, f"{text}# checksum {digest(text)} of the lines above; remove it if you change them on purpose\n")


def digest(text: str) -> str:
    """What identifies a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path, sections: Sequence[str], *, kind: str) -> dict[str, Any]:
    """The options that `write` wrote, each section a mapping from names to plain values.

    Parameters
    ----------
    path
        The file.
    sections
        Those that it must have.
    kind
        What its folder is, for the message if there is no such file: "run folder".

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or incomplete.
    """
    try:
        text = read_text(path, limit=_LARGEST)
        content = yaml.load(text, Loader=_PlainLoader)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path.parent} is no {kind}: it has no {path.name}; check the path") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {refusal(error)}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())}); {ADVICE}") from error
    written = _CHECKSUM.search(text)  # an earlier version of kshot wrote none
    if written is None and "# checksum" in text:
        raise CheckpointError(f"{path} is damaged: the line with its checksum is not whole; {ADVICE}")
    if written is not None and written[1] != digest(text[: written.start()]):
        raise CheckpointError(
            f"{path} is not as training wrote it: its checksum differs; put it back, train the run again, or remove "
            f"the last line of the file if you changed it on purpose"
        )
    refuse(path, _faults(content if isinstance(content, dict) else {}, sections))
    return content


def refuse(path: Path, faults: Iterator[str]) -> None:
    """CheckpointError if there are faults, each of which says what is wrong with the file."""
    text = "; ".join(faults)
    if text:
        raise CheckpointError(f"{path} is incomplete: {text}; {ADVICE}")


def _faults(content: Mapping[str, Any], sections: Sequence[str]) -> Iterator[str]:
    missing = [name for name in sections if not isinstance(content.get(name), dict)]
    missing += [f"{name}.name" for name in ("data", "learner") if name not in missing and "name" not in content[name]]
    if missing:
        yield f"it lacks {', '.join(missing)}"
        return
    for section in sections:
        for name, value in content[section].items():
            if not isinstance(name, str) or not _is_plain(value) or (name == "name" and not isinstance(value, str)):
                yield f"{section}.{name} is {value!r:.60}"
    if content["backbone"] and not {"name", "unregistered"} & content["backbone"].keys():
        yield "it lacks backbone.name"


def _is_plain(value: Any) -> bool:
    """Whether a safe checkpoint can hold the value, and no number of it is nan."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(part) for name, part in value.items())
    if isinstance(value, float):
        return not math.isnan(value)
    return value is None or isinstance(value, (bool, int, str))
