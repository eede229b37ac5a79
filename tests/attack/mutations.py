"""Every file of two small trained runs, damaged in many seeded ways, under every command that reads them.

A command holds if it refuses with code 2 and one line, or ends with code 0 and the numbers of the undamaged files. A
checkpoint that was written with other content and intact checksums is another run: it may have other numbers, but it
must not end in a traceback.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from attack.tally import Answer, Tally, ask, refusal
from cli_toys import MEASURE, TINY, prepare_tiny
from PIL import Image

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


class Runs:
    """Two trained and measured runs, from which every case gets a fresh copy of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.pristine, self.runs = folder / "pristine", folder / "runs"
        prepare_tiny(self.root)
        for name, seed in (("a", 0), ("b", 1)):
            words = ["train", *TINY, "--seed", seed, "--root", self.root, "--run", self.pristine / name]
            self._succeeding(words)
        self._succeeding(["evaluate", self.pristine / "a", self.pristine / "b", *self._measure])
        self._write_photos(folder / "photos")
        shutil.copytree(self.pristine, self.runs)
        self.expected: dict[str, str] = {}
        for command in COMMANDS:
            self.expected[command] = self.numbers(command, self.ask(command))
            self.restore()  # what a resumed training leaves is another run

    @property
    def _measure(self) -> list[object]:
        return [*MEASURE, "--shots", 1, "--root", self.root]

    @staticmethod
    def _succeeding(words: Sequence[object]) -> None:
        answer = ask(words)
        assert answer.code == 0, answer

    @staticmethod
    def _write_photos(folder: Path) -> None:
        generator = np.random.default_rng(0)
        for name in ("cat", "dog"):
            (folder / name).mkdir(parents=True)
            for number in range(2):
                pixels = generator.integers(0, 256, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{number}.png")

    def restore(self) -> None:
        """Undo what a case and its command did to the first run."""
        shutil.rmtree(self.runs / "a")
        shutil.copytree(self.pristine / "a", self.runs / "a")

    def ask(self, command: str) -> Answer:
        """Run a command on the copies."""
        first, second = self.runs / "a", self.runs / "b"
        photos = self.folder / "photos"
        words: dict[str, list[object]] = {
            "evaluate": ["evaluate", first, *self._measure],
            "compare": ["compare", second, first, *self._measure],
            "report": ["report", first, second, "--out", self.folder / "page.html"],
            "resume": ["train", "--resume", first, "--max-epochs", 3, "--progress", "false", "--root", self.root],
            "classify": ["classify", photos, photos / "cat", "--run", first, "--root", self.root, "--out",
                         self.folder / "said"],
        }  # fmt: skip
        return ask(words[command])

    def agrees(self, command: str, answer: Answer) -> bool:
        """Whether the numbers are those of the undamaged files, or the page says that there are none."""
        said = self.numbers(command, answer)
        return said == self.expected[command] or (command == "report" and "a has no evaluation of its present" in said)

    def numbers(self, command: str, answer: Answer) -> str:
        """What a successful command said in numbers: none of its times, and not the configuration it quotes."""
        if command in ("evaluate", "compare"):
            return answer.out
        if command == "classify":
            return (self.folder / "said" / "predictions.csv").read_text()
        if command == "report":
            page = (self.folder / "page.html").read_text()
            return re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
        best = torch.load(self.runs / "a" / "checkpoints" / "best.pt", weights_only=True)
        digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in best["learner"].values()))
        return digest.hexdigest() + (self.runs / "a" / "metrics.csv").read_text()


def attack(folder: Path, *, seed: int, cases: int, tally: Tally) -> None:
    """Try this many mutations, each under one command."""
    runs = Runs(folder)
    for number in range(cases):
        dice = random.Random(f"{seed}-{number}")
        pattern = dice.choice(list(FILES))
        command, mutate = dice.choice(_READ_BY[pattern]), dice.choice(FILES[pattern])
        path = dice.choice(sorted((runs.runs / "a").glob(pattern)))
        content = path.read_bytes()
        damaged = mutate(content, dice)
        path.write_bytes(damaged)
        answer = runs.ask(command)
        if answer.code == 0 and not answer.escaped:
            wrong = "" if mutate is _saved_value or runs.agrees(command, answer) else "other numbers"
        else:
            wrong = refusal(answer)
        tally.count(f"mutation of {pattern}", f"seed {seed}-{number}, {mutate.__name__}, {command}", wrong)
        runs.restore()
