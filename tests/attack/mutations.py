"""Every file of two small trained runs, damaged in many seeded ways, under every command that reads them.

A command holds if it refuses with code 2 and one line, or ends with code 0 and the numbers of the undamaged files. A
checkpoint that was written with other content and intact checksums is another run: it may have other numbers, but it
must not end in a traceback.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from attack import children
from attack.photographs import write_photographs
from attack.tally import Answer, ask, refusal
from cli_toys import MEASURE, TINY, prepare_tiny

Mutation = Callable[[bytes, random.Random], bytes]

_ODD = [1e30, -1, -0.5, 1.5, None, "x", "", [], {}, True, float("nan"), float("inf"), 10**30, [None], "1", 0]


def _flip(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    place = dice.randrange(8 * len(content))
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


def _cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def _no_utf8(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([0xFF, 0xFE, 0x00, 0xC3]) + content[place:]


def _zeros(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


def _random(content: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(1, 2000))


def _digit(content: bytes, dice: random.Random) -> bytes:
    places = [match.start() for match in re.finditer(rb"\d", content)]
    place = dice.choice(places)
    return (
        content[:place]
        + str((int(content[place : place + 1]) + dice.randrange(1, 10)) % 10).encode()
        + content[place + 1 :]
    )


def _line(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    kind = dice.randrange(3)
    if kind == 0:
        return b"".join(lines[:place] + lines[place + 1 :])
    if kind == 1:
        return b"".join(lines[:place] + [lines[place]] * 2 + lines[place + 1 :])
    return b"".join([*lines[:place], lines[place][::-1].strip() + b"\n", *lines[place + 1 :]])


def _leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested lists and mappings; of long lists only the first ones."""
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node[:3]):
            yield from _leaves(value, (*path, place))


def _changed(tree: Any, dice: random.Random) -> Any:
    """The tree with a value replaced, removed or renamed."""
    *way, last = dice.choice(list(_leaves(tree)))
    parent = tree
    for key in way:
        parent = parent[key]
    kind = dice.choice(["replace", "replace", "replace", "remove", "rename"])
    if kind == "replace":
        parent[last] = dice.choice(_ODD)
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{last}_"] = parent.pop(last)
    else:
        del parent[last]
    return tree


def _json_value(content: bytes, dice: random.Random) -> bytes:
    return json.dumps(_changed(json.loads(content), dice)).encode()


def _yaml_value(content: bytes, dice: random.Random) -> bytes:
    """Another value under the old checksum; without its line, the file says that it was changed on purpose."""
    changed = yaml.safe_dump(_changed(yaml.safe_load(content), dice)).encode()
    return changed + content[content.index(b"# checksum") :]


def _cell(content: bytes, dice: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = dice.choice(rows)
    row[dice.randrange(len(row))] = dice.choice(["nan", "", "1e30", "-1", "inf", "x", "None", "'", '"', "0x1"])
    return "\n".join(",".join(row) for row in rows).encode() + b"\n"


def _column(content: bytes, dice: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    place = dice.randrange(len(rows[0]))
    for row in rows:
        del row[place]
    return "\n".join(",".join(row) for row in rows).encode() + b"\n"


def _saved_value(content: bytes, dice: random.Random) -> bytes:
    """A checkpoint with intact checksums and wrong content."""
    import io

    tree = torch.load(io.BytesIO(content), weights_only=True)
    file = io.BytesIO()
    torch.save(_changed_checkpoint(tree, dice), file)
    return file.getvalue()


def _changed_checkpoint(tree: Any, dice: random.Random) -> Any:
    """Another structure; the weights of tensors are left alone but for their shape and their NaN."""
    ways = [way for way in _leaves(tree) if way[0] != "config"]
    *way, last = dice.choice(ways)
    parent = tree
    for key in way:
        parent = parent[key]
    value = parent[last]
    if isinstance(value, torch.Tensor):
        full = torch.full(value.shape, torch.nan)
        parent[last] = dice.choice([value[None], full, value.flatten()[:1], "x", None])
    elif dice.random() < 0.4:
        del parent[last]
    else:
        parent[last] = dice.choice([value for value in _ODD if type(value) is not type(parent[last])])
    return tree


ANY: list[Mutation] = [_flip, _cut, _no_utf8, _zeros, _random]
FILES: dict[str, list[Mutation]] = {
    "config.yaml": [*ANY, _digit, _line, _yaml_value, _yaml_value, _yaml_value],
    "metrics.csv": [*ANY, _digit, _line, _cell, _cell, _column],
    "timing.csv": [*ANY, _digit, _line, _cell, _cell, _column],
    "evaluation/*.json": [*ANY, _digit, _line, _json_value, _json_value, _json_value],
    "checkpoints/best.pt": [*ANY, _saved_value, _saved_value],
    "checkpoints/last.pt": [*ANY, _saved_value, _saved_value],
}
COMMANDS = ("evaluate", "compare", "report", "resume", "classify")
# what a command reads; a mutation of anything else proves nothing
_READ_BY = {
    "config.yaml": COMMANDS,
    "metrics.csv": ("report", "resume"),
    "timing.csv": ("report", "resume"),
    "evaluation/*.json": ("compare", "report"),
    "checkpoints/best.pt": COMMANDS,
    "checkpoints/last.pt": ("resume", "report"),
}


def _words(command: str) -> list[object]:
    measured = [*MEASURE, "--shots", 1]
    words: dict[str, list[object]] = {
        "evaluate": ["evaluate", "runs/a", *measured],
        "compare": ["compare", "runs/b", "runs/a", *measured],
        "report": ["report", "runs/a", "runs/b", "--out", "page.html"],
        "resume": ["train", "--resume", "runs/a", "--max-epochs", 3, "--progress", "false"],
        "classify": ["classify", "photos", "photos/class-0", "--run", "runs/a", "--out", "said", "--cache", "false"],
    }
    return words[command]


def prepare(folder: Path) -> dict[str, str]:
    """Two trained and measured runs, and what each command says of them in numbers."""
    prepare_tiny(folder / "root")
    os.environ["KSHOT_ROOT"] = str(folder / "root")
    setting = folder / "setting"
    write_photographs(setting / "photos", classes=2, images=2)
    before = Path.cwd()
    os.chdir(setting)
    for words in (
        ["train", *TINY, "--run", "runs/a"],
        ["train", *TINY, "--seed", 1, "--run", "runs/b"],
        ["evaluate", "runs/a", "runs/b", *MEASURE, "--shots", 1],
    ):
        answer = children.command(words)
        assert answer.code == 0, answer
    expected = {}
    for command in COMMANDS:
        place = folder / f"undisturbed {command}"
        shutil.copytree(setting, place)
        os.chdir(place)
        answer = children.command(_words(command))
        assert answer.code == 0, answer
        expected[command] = numbers(command, answer)
    os.chdir(before)
    return expected


def numbers(command: str, answer: Answer) -> str:
    """What a successful command said in numbers: none of its times, and not the configuration it quotes."""
    if command in ("evaluate", "compare"):
        return answer.out
    if command == "classify":
        return Path("said/predictions.csv").read_text()
    if command == "report":
        return re.sub(r"<pre>.*?</pre>", "", Path("page.html").read_text(), flags=re.DOTALL)
    best = torch.load("runs/a/checkpoints/best.pt", weights_only=True)
    digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in best["learner"].values()))
    return digest.hexdigest() + Path("runs/a/metrics.csv").read_text()


def _agrees(command: str, expected: str, answer: Answer) -> bool:
    """Whether the numbers are those of the undamaged files, or the page says that there are none."""
    said = numbers(command, answer)
    return said == expected or (command == "report" and "a has no evaluation of its present" in said)


def _try(setting: Path, expected: Mapping[str, str], command: str, pattern: str, mutate: Mutation, name: str) -> str:
    dice = random.Random(name)
    shutil.copytree(setting, ".", dirs_exist_ok=True)
    path = dice.choice(sorted(Path("runs/a").glob(pattern)))
    path.write_bytes(mutate(path.read_bytes(), dice))
    answer = ask(_words(command))
    if answer.code == 0 and not answer.escaped:
        agrees = mutate is _saved_value or _agrees(command, expected[command], answer)
        return "" if agrees else "other numbers"
    return refusal(answer)


def cases(folder: Path, *, seed: int, count: int) -> Iterator[children.Case]:
    """This many mutations, each under one command."""
    expected = prepare(folder)
    for number in range(count):
        dice = random.Random(f"mutation-{seed}-{number}")
        pattern = dice.choice(list(FILES))
        command, mutate, name = dice.choice(_READ_BY[pattern]), dice.choice(FILES[pattern]), f"{seed}-{number}"
        yield children.Case(
            f"mutation of {pattern}",
            f"seed {name}, {mutate.__name__}, {command}",
            lambda _, of=(command, pattern, mutate, name): _try(folder / "setting", expected, *of),
        )
