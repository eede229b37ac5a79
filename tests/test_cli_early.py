"""A mistyped name is answered before torch is loaded, in the words of the command itself, which comes to it later."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kshot.backbones import backbones
from kshot.cli import early, train, tsa
from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.errors import KshotError
from kshot.learners import learners
from kshot.learners.create import FROM_DATA
from kshot.training import TrainingOptions

MISTYPED = [
    "--learnr x",
    "--lerner.ways 5",
    "--learner protonett",
    "--learner anil --learner.inner_stepps 3",
    "--learner protonet --learner.inner-rate 0.1",
    "--set learner.tempr=3",
    "--training.sed 1",
    "--inner-rate 1",
    "--backbone conv",
    "--backbone.widht 3",
    "--data glyfs",
    "--data sinusoid",
    "--recipe mtl-cifr",
    "--recipe maml-cifar-fs-5way-1shot --learner.temperature 3",
    "--resume runs/x --shotz 5",
    "--learner",
]


def refusal_of(words: list[str]) -> str | None:
    try:
        early.check(words)
    except KshotError as error:
        return str(error)
    return None


def refusal(function, *arguments: object) -> str:
    with pytest.raises(KshotError) as refused:
        function(*arguments)
    return str(refused.value)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_ROOT", str(tmp_path))
    monkeypatch.setattr(train, "read_config", lambda folder: {"training": {}})  # of the run that is resumed


@pytest.mark.parametrize("line", MISTYPED)
def test_what_is_said_early_is_what_the_command_says(line):
    words = line.split()
    assert refusal(early.check, ["train", *words]) == refusal(train.run, words)


def test_stages_have_options_of_their_own(monkeypatch):
    early.check(["tsa", "train", "--solutions", "10", "--learner.groups", "3"])
    words = ["--solutoins", "10"]
    assert refusal(early.check, ["tsa", "train", *words]) == refusal(tsa.run, ["train", *words])


@pytest.mark.parametrize("line", ["train --shots 5 --set seed=2", "train --help", "tsa usage --x", "evaluate --x"])
def test_what_is_right_or_not_known_here_passes(line):
    assert refusal_of(line.split()) is None


@pytest.mark.parametrize(("room", "registry"), [("learners", learners), ("backbones", backbones)])
def test_options_are_those_of_the_constructors(room, registry):
    shipped = {name: cls for name, cls in registry.items() if cls.__module__.startswith("kshot.")}
    constructors = {name: set(inspect.signature(cls).parameters) - FROM_DATA for name, cls in shipped.items()}
    assert {name: set(options) for name, options in early.options_of(room).items()} == constructors


def test_fields_and_names_are_those_of_the_tables():
    names = [field.name for field in fields(TrainingOptions)]
    assert early.fields_of("training/options.py", "TrainingOptions") == names
    sources, families = early.sources_and_families()
    assert (set(sources), families) == (set(SOURCES), list(FAMILIES))


def test_torch_is_not_loaded_for_it(tmp_path):
    script = "import sys; from kshot.cli import main; print(main(['train', '--learnr', 'x']), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert (result.stdout, result.stderr) == (
        "2 False\n",
        "error: there is no option --learnr; did you mean --learner? kshot train --help lists all options\n",
    )
