"""Files of somebody who means harm, or of another program: images, archives, pickles, YAML, checkpoints, names."""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from attack.children import Case, command
from attack.hostile_files import ARCHIVES, ARRAYS, CHECKPOINTS, IMAGES, JSONS, PICKLES, YAMLS, Make
from attack.kills import STAGES
from attack.photographs import write_photographs
from attack.tally import Answer, refusal
from cli_toys import MEASURE, TINY, prepare_tiny

MOST_MEMORY = 1600  # MiB that a hostile file may cost, above what a process starts with


def prepare(folder: Path) -> None:
    """A run, a TSA-MAML run, and photographs."""
    prepare_tiny(folder / "root")
    os.environ["KSHOT_ROOT"] = str(folder / "root")
    write_photographs(folder / "photographs", classes=6, images=2)
    before = Path.cwd()
    os.chdir(folder)
    for words in (["train", *TINY, "--run", "run"], ["tsa", "train", *STAGES[:-1], "stages"]):
        assert command(words).code == 0
    os.chdir(before)


def _image(folder: Path, place: Path, dice: random.Random, make: Make, use: str) -> Answer:
    shutil.copytree(folder / "photographs", "tree")
    for label in range(4):  # several at once, since images are read side by side
        path = Path("tree", f"class-{label}", "0.png").resolve()
        path.unlink()
        make(path, dice)
    if use == "prepare":
        words: list[object] = ["data", "prepare", "folder", "--source", "tree", "--name", "mine", "--root", "root"]
        return command([*words, "--size", 16])
    shutil.copytree(folder / "run", "run")
    return command(["classify", "tree", "tree/class-5", "--run", "run", "--cache", "false"])


def _archive(folder: Path, place: Path, dice: random.Random, make: Make) -> Answer:
    Path("files").mkdir()
    make(Path("files/images_background.zip").resolve(), dice)
    return command(["data", "prepare", "omniglot-background", "--source", "files", "--root", "root"])


def _cifar(folder: Path, place: Path, dice: random.Random, make: Make) -> Answer:
    Path("files").mkdir()
    names = {"fine_label_names": [f"class {number}" for number in range(100)], "coarse_label_names": ["all"] * 20}
    Path("files/meta").write_bytes(pickle.dumps(names))
    for part in ("train", "test"):
        make(Path("files", part).resolve(), dice)
    return command(["data", "prepare", "cifar-fs", "--source", "files", "--root", "root"])


def _of_a_run(name: str, words: list[object]) -> Callable[[Path, Path, random.Random, Make], Answer]:
    def act(folder: Path, place: Path, dice: random.Random, make: Make) -> Answer:
        for each in ("run", "stages", "root"):
            shutil.copytree(folder / each, each)
        path = Path(name).resolve()
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        make(path, dice)
        return command([*words, "--root", "root"] if words[0] != "report" else words)

    return act


# Names --------------------------------------------------------------------------------------------------------------

NAMES = [
    b"$x^2$", b"$", b"a$b", b"=cmd|' /C calc'!A0", b"@SUM(1)", b"+1", b"-1", b"\x1b[31mred", b"a\rb", b"a\nb", b"a\tb",
    b"\xff\xfe", b"caf\xe9", "‮reversed".encode(), "💥".encode(), b"%s%n", b"{name}", b"<img src=x onerror=alert(1)>",
    b"a,b\"c", b"x" * 200, b" ", b"'", b"\\", b"a b", b"\x07", "\u0085".encode(), b"_", b"^", b"null", b"~",
]  # fmt: skip


def _named(folder: Path, place: Path, dice: random.Random, name: bytes) -> str:
    """A class, an image and a run of this name, in every command that shows names."""
    shutil.copytree(folder / "photographs", "tree")
    tree = os.fsencode(str(Path("tree").resolve()))
    os.rename(tree + b"/class-0", tree + b"/" + name)
    os.rename(tree + b"/class-1/0.png", tree + b"/class-1/" + name + b".png")
    run = b"./" + name
    shutil.copytree(folder / "run", os.fsdecode(run))
    prepared: list[object] = ["--root", "root"]
    measured: list[object] = [*MEASURE, "--root", folder / "root"]
    for words in (
        ["data", "prepare", "folder", "--source", "tree", "--name", "mine", "--size", 16, *prepared],
        ["data", "show", "mine", "--split", "train", *prepared],
        ["data", "verify", "mine", *prepared],
        ["evaluate", run, *measured, "--style", dice.choice(["text", "csv", "markdown", "latex"])],
        ["report", run, "--out", "page.html"],
        ["classify", "tree", "tree/class-1", "--run", run, "--out", "said", "--cache", "false"],
    ):
        answer = command(words)
        if answer.code != 0 and (wrong := refusal(answer)):
            return f"{words[:2]}: {wrong}"
        if answer.code == 0 and answer.escaped:
            return f"{words[:2]}: {answer.escaped}"
        shown = answer.out + answer.err
        if any(not character.isprintable() and character not in "\n\r" for character in shown.replace("\x1b[A", "")):
            return f"{words[:2]} prints control characters: {shown!r:.300}"
        if "\r" in answer.out:
            return f"{words[:2]} prints a carriage return"
    for table in Path("said").glob("*.csv"):
        cells = table.read_text(errors="surrogateescape").replace('"', "").replace("\n", ",").split(",")
        formulas = [cell for cell in cells if cell[:1] in ("=", "@", "+", "-") and not cell[1:2].isdigit()]
        if formulas:
            return f"{table} holds the formula {formulas[0]!r}"
    return ""


def _judged(answer: Answer) -> str:
    """What is wrong: a traceback, a crash, more memory than agreed, or something that a hostile file did."""
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 - _at_start()
    if memory > MOST_MEMORY:
        return f"it took {memory:.0f} MiB"
    if Path("stolen").exists() or list(Path().glob("**/stolen")):
        return "a hostile file was obeyed"
    if answer.code == 0 and not answer.escaped:
        return ""
    return refusal(answer)


def _at_start() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cases(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """This many hostile files, each kind in turn."""
    prepare(folder)
    resume: list[object] = ["train", "--resume", "run", "--max-epochs", 3, "--progress", "false"]
    evaluate: list[object] = ["evaluate", "run", *MEASURE]
    best, last, tiny = "run/checkpoints/best.pt", "run/checkpoints/last.pt", "root/tiny"
    acts: list[tuple[str, dict[str, Make], Callable[[Path, Path, random.Random, Make], Answer]]] = [
        ("image, prepare", IMAGES, lambda *of: _image(*of, "prepare")),
        ("image, classify", IMAGES, lambda *of: _image(*of, "classify")),
        ("archive", ARCHIVES, _archive),
        ("pickle", PICKLES, _cifar),
        ("config.yaml", YAMLS, _of_a_run("run/config.yaml", evaluate)),
        ("stages.yaml", YAMLS, _of_a_run("stages/stages.yaml", ["tsa", "train", "--resume", "stages"])),
        ("best.pt", CHECKPOINTS, _of_a_run(best, evaluate)),
        ("last.pt", CHECKPOINTS, _of_a_run(last, resume)),
        ("images.npy", ARRAYS, _of_a_run(f"{tiny}/images.npy", evaluate)),
        ("meta.json", JSONS, _of_a_run(f"{tiny}/meta.json", evaluate)),
        ("evaluation", JSONS, _of_a_run("run/evaluation/x.json", ["report", "run"])),
    ]
    found: list[tuple[str, str, Callable[[Path, random.Random], str]]] = []
    for kind, makes, act in acts:
        for name, make in makes.items():
            found.append((kind, name, lambda place, dice, act=act, make=make: _judged(act(folder, place, dice, make))))
    for raw in NAMES:
        found.append(("name", repr(raw), lambda place, dice, raw=raw: _named(folder, place, dice, raw)))
    order = random.Random(f"hostile-{seed}").sample(range(len(found)), len(found))
    for number in range(count):
        kind, name, do = found[order[number % len(order)]]
        dice = random.Random(f"hostile-{seed}-{number}")
        yield Case(f"hostile {kind}", name, lambda place, do=do, dice=dice: do(place, dice), memory=4 << 30)
