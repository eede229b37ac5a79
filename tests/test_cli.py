"""The command line itself: help, spelling of options, mistakes, and the commands on data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from kshot.backbones import backbones
from kshot.cli import COMMANDS
from kshot.cli.options import Options
from kshot.cli.signatures import parameters
from kshot.cli.train import training_options
from kshot.cli.tsa import VIEWS
from kshot.data import prepare
from kshot.data.sources import SOURCES
from kshot.errors import ConfigError
from kshot.evaluation.protocol import evaluate
from kshot.experiments.findings import experiments
from kshot.learners import learners
from kshot.solvers import adaptations
from kshot.training import TrainingOptions


@pytest.mark.parametrize("words", [[], *[[name] for name in COMMANDS], ["data", "prepare"], ["data", "show"]])
def test_help_teaches(say, words):
    code, out, _ = say(*words, "--help")
    assert code == 0
    assert "examples:" in out
    assert f"  kshot {' '.join(words)}".rstrip() in out.split("examples:")[1]


PARTS_WITH_OPTIONS = [
    *learners.values(),
    *backbones.values(),
    *adaptations.values(),
    *SOURCES.values(),
    TrainingOptions,
    evaluate,
    prepare,
]


def test_every_option_of_every_part_has_a_text():
    skipped = {"learner", "data", "split"}
    texts = [(f"{part.__name__}.{name}", text) for part in PARTS_WITH_OPTIONS for name, _, _, text in parameters(part)]
    assert [name for name, text in texts if not text.strip() and name.split(".")[1] not in skipped] == []


@pytest.mark.parametrize("part", PARTS_WITH_OPTIONS, ids=lambda part: part.__name__)
def test_every_option_of_a_part_has_a_text_of_its_own(part):
    """One that two share, such as "steps in training and in evaluation", does not say which of them is which."""
    texts = [text for _, _, _, text in parameters(part) if text.strip()]
    assert sorted(texts) == sorted(set(texts))


COMMANDS_WITH_OPTIONS = [
    *[[name] for name in COMMANDS if name not in ("classifier", "data", "results", "study", "tsa", "theory")],
    *[["train", "--learner", name] for name in learners if name != "tsa-maml"],
    *[["train", "--backbone", name] for name in backbones],
    *[["evaluate", "--adaptation", name] for name in adaptations],
    *[["classifier", name] for name in ("fit", "predict", "evaluate", "show", "export")],
    *[["data", name] for name in ("list", "prepare", "verify", "show")],
    *[["data", "prepare", name] for name in SOURCES],
    *[["results", name] for name in ("build", "add")],
    *[["study", name] for name in ("list", "plan", "run", "status", "report")],
    *[["tsa", name] for name in ("train", *VIEWS)],
    *[["theory", name] for name in experiments],
]


@pytest.mark.parametrize("words", COMMANDS_WITH_OPTIONS, ids=" ".join)
def test_every_option_of_every_command_has_a_text(say, words, monkeypatch):
    """The options of the parser that prints the help."""
    shown = []

    def list_options(options: Options, *_: object) -> None:
        shown.extend(options.parser._actions)
        raise SystemExit(0)

    monkeypatch.setattr(Options, "parse", list_options)
    assert say(*words)[0] == 0
    assert [action.dest for action in shown if not (action.help or "").strip()] == []
    assert [action.dest for action in shown if (action.help or "").startswith("As for")] == [], "looked up nowhere"
    assert shown


def test_help_shows_the_options_of_the_chosen_parts(say):
    _, own, _ = say("train", "--learner", "mtl", "--help")
    _, other, _ = say("train", "--learner=protonet", "--help")
    assert "--learner.normalize-features {true,false}" in own
    assert "--learner.normalize-features" not in other
    assert "--backbone.width WIDTH" in own
    assert "image-size" not in own
    assert "num-classes" not in own


def test_a_recipe_sets_the_defaults_that_help_shows(say):
    _, out, _ = say("train", "--recipe", "mtl-fc100-1shot", "--help")
    words = " ".join(out.split())
    assert "default: fc100" in words
    assert "--queries QUERIES" in words
    assert words.split("--queries QUERIES")[1].split("default: ")[1].startswith("4)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian' (did you mean 'train'?)"),
        (["train", "--lerner", "mtl"], "no option --lerner; did you mean --learner?"),
        (["train", "--learner", "mlt"], "no learner 'mlt'; choose one of"),
        (["train", "--backbone", "conv5"], "no backbone 'conv5'; choose one of"),
        (["train", "--learner", "protonett"], "did you mean 'protonet'?"),
        (["train", "--backbone", "resnet-12"], "did you mean 'resnet12'?"),
        (["train", "--data", "tinny"], "no dataset 'tinny'"),
        (["train", "--recipe", "mtl-cifar-fs-5-shot"], "did you mean 'mtl-cifar-fs-5shot'?"),
        (["train", "--learner.normalise_over", "batch"], "did you mean --learner.normalize-over?"),
        (
            ["train", "--learner", "protonet", "--learner.inner-rate", "0.1"],
            "no option --learner.inner-rate; protonet has none of this name, but anil, hsml, imaml, maml, meta-lstm, "
            "minibatch-prox, mmaml, reptile, tsa-maml, unicorn-maml; "
            "kshot train --learner protonet --help lists all options",
        ),
        (
            ["train", "--learner.rate", "0.1"],
            "no option --learner.rate; kshot train --learner mtl --help lists all options",
        ),
        (["train", "--width", "8"], "no option --width; did you mean --backbone.width?"),
        (["train", "--learner", "maml", "--learner.ways", "8"], "no option --learner.ways; did you mean --ways?"),
        (["evaluate", "nowhere", "--adaptation", "ridge", "--adaptation.c", "1"], "ridge has none of this name, but l"),
        (
            ["train", "--learner", "r2d2", "--learner.random_shots", "maybe"],
            "--learner.random-shots takes true or false, not 'maybe'",
        ),
        (
            ["train", "--set", "learner.normalize_over=both"],
            "--learner.normalize-over takes one of 'task', 'batch', not 'both'",
        ),
        (["train", "--set", "max_epochs=many"], "--max-epochs takes a whole number or null, not 'many'"),
        (["train", "--set", "max_epochs"], "--set takes key=value"),
        (["train", "--learner"], "--learner needs a value"),
        (["train", "--factor"], "--factor needs a value"),
        (["train", "--milestones", "--seed", "1"], "--milestones needs a value"),
        (["train", "--learning-rate", "fast"], "--learning-rate takes a number, not 'fast'"),
        (["train", "--data", "tiny", "--ways", "9"], "tiny/train has 8 classes, too few for 9 ways"),
        (["train", "--data", "tiny", "--shots", "9"], "9 shots + 5 queries need 14; choose fewer shots or queries"),
        (["train", "--learner", "tsa-maml", "--data", "tiny"], "tsa-maml is trained in stages: kshot tsa train --data"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder"),
        (["evaluate"], "the following arguments are required: runs"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["evaluate", "nowhere", "--adaptation", "magic"], "no adaptation 'magic'; choose one of"),
        (["compare", "nowhere"], "nowhere is no run folder"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["data", "prepare", "cifar"], "no dataset 'cifar' (did you mean 'cifar-fs'?); choose one of"),
        (["data", "prepare", "cifar-fs", "--size", "3"], "no option --size; kshot data prepare cifar-fs --help"),
        (["data", "prepare", "--name", "x", "folder", "--size", "big"], "--size takes a whole number, not 'big'"),
        (["data", "prepare", "mixture", "--name", "x"], "required: parts; kshot data prepare mixture --help"),
        (["data", "lst"], "kshot data has no command 'lst'"),
        (["data", "show", "tiny", "--ways", "7"], "tiny/test has 6 classes, too few for 7 ways"),
        (["data", "show", "tiny", "--tasks", "0"], "tasks is 0, but must be positive"),
        (["recipes", "nope"], "no recipe 'nope'"),
        (["classify", "nowhere", "nothing"], "nothing does not exist"),
    ],
)
def test_mistakes_are_named_without_a_traceback(say, words, message):
    code, out, err = say(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in out + err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate"],
        ["compare"],
        ["report"],
        ["train", "--resume"],
        ["classify", ".", "new.png", "--run"],
        ["tsa", "steps"],
        ["regression"],
    ],
)
def test_an_incomplete_configuration_is_named_in_every_command(say, runs, tmp_path, command):
    shutil.copytree(runs / "mtl-0", tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("learner: {name: mtl}\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    code, out, err = say(*command, "run")
    assert code == 2
    assert "config.yaml is incomplete: it lacks data, backbone, training; put the file back" in err
    assert "Traceback" not in out + err


def test_interruption_says_how_to_go_on(say, monkeypatch):
    def stop(_: object) -> None:
        raise KeyboardInterrupt("continue with kshot train --resume runs/x")

    monkeypatch.setattr("kshot.cli.recipes.run", stop)
    code, _, err = say("recipes")
    assert code == 130
    assert "kshot train --resume runs/x" in err


def test_data_commands(say):
    code, out, _ = say("data", "list")
    assert code == 0
    assert "tiny" in out
    assert "glyphs" in out
    assert "cifar-fs" in out
    assert "--fractions" in say("data", "prepare", "folder", "--help")[1]
    assert "--fractions" not in say("data", "prepare", "glyphs", "--help")[1]
    assert say("data", "verify", "tiny")[1].startswith("tiny: 240 images, classes: 8 train, 6 val, 6 test")
    assert say("data", "show", "tiny", "--shots", 2, "--queries", 2, "--tasks", 3)[0] == 0
    assert Path("tiny-test.png").read_bytes().startswith(b"\x89PNG")


def test_lists_are_typed_as_words_or_in_brackets():
    for words in (
        ["--milestones", "20", "40"],
        ["--milestones", "[20,40]"],
        ["--milestones=[20, 40]"],
        ["--set", "milestones=[20,40]"],
        ["--set", "training.milestones=[20,40]"],
    ):
        options = training_options(words)[1]
        assert options.parse(words).milestones == [20, 40]
    for words, factor in (
        (["--factor", "0.1", "0.2"], [0.1, 0.2]),
        (["--factor", "[0.1,0.2]", "--seed", "1"], [0.1, 0.2]),
        (["--factor", "0.5", "--seed", "1"], 0.5),
    ):
        assert training_options(words)[1].parse(words).factor == factor
    words = ["--backbone", "resnet12", "--set", "backbone.widths=[64,128,256,512]", "--factor=[0.5,0.1]"]
    given = training_options(words)[1].parse(words)
    assert list(given.backbone.widths) == [64, 128, 256, 512]
    assert given.factor == [0.5, 0.1]


def test_help_speaks_the_language_of_the_command_line(say):
    out = " ".join(say("train", "--help")[1].split())
    assert "--compile {true,false}" in out
    assert "default: false" in out
    assert not {"default: False", "default: True", "default: None"} & set(re.findall(r"default: \w+", out))
    assert "--factor+" not in out
    assert "--factor FACTOR [FACTOR ...] What" in out
    assert "(whole number or null, default: null)" in out
    assert (
        len({text for name, *_, text in parameters(TrainingOptions) if name.endswith(("ways", "shots", "queries"))})
        == 6
    )
    assert len({text for name, *_, text in parameters(evaluate) if name in ("ways", "shots", "queries")}) == 3


def test_switches_need_no_value():
    options = Options("kshot test", "", [])
    options.add("--overwrite", bool, default=False, text="a switch")
    options.add("--size", int, default=3, text="a number")
    assert options.parse(["--overwrite", "--size", "4"]).as_dict() == {"overwrite": True, "size": 4}
    for word in ("false", "False", "no", "off"):
        assert options.parse(["--overwrite", word]).overwrite is False
        assert options.parse([f"--overwrite={word}"]).overwrite is False
    assert options.parse(["--overwrite", "Yes"]).overwrite is True
    with pytest.raises(ConfigError, match="--overwrite takes true or false, not 'maybe'"):
        options.parse(["--overwrite=maybe"])
