"""The commands end to end on a tiny dataset, and what they say to mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from kshot.backbones import backbones
from kshot.cli import COMMANDS, main
from kshot.cli.options import Options, parameters
from kshot.cli.train import training_options
from kshot.data import prepare
from kshot.data.sources import SOURCES
from kshot.data.store import ClassInfo
from kshot.data.writing import Contents, write
from kshot.errors import ConfigError
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners import learners
from kshot.report.page import page
from kshot.report.runs import read_evaluations
from kshot.solvers import adaptations
from kshot.training import load_run, train

TINY = ["--data", "tiny", "--backbone.width", "8", "--max-epochs", "2", "--tasks-per-epoch", "6", "--meta-batch", "3"]
TINY += [
    "--validation-tasks",
    "10",
    "--queries",
    "3",
    "--shots",
    "2",
    "--validation-queries",
    "4",
    "--progress",
    "false",
]
MEASURE = ["--tasks", "30", "--queries", "4"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder of prepared datasets that holds `tiny`: 8 + 6 + 6 classes of 12 images, 16x16, one channel."""
    folder = tmp_path_factory.mktemp("root")
    generator = np.random.default_rng(0)
    parts = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
    classes = [ClassInfo(f"class-{number}", "all", part, 12) for number, part in enumerate(parts)]
    prototypes = generator.integers(60, 196, (len(parts), 16, 16, 1))
    noise = generator.normal(0, 60, (len(parts), 12, 16, 16, 1))
    images = (prototypes[:, None] + noise).clip(0, 255).astype(np.uint8)
    batches = [(images[number], np.full(12, number)) for number in range(len(parts))]
    write("tiny", Contents(classes, (16, 16, 1), batches, origin="random", augment="none"), folder)
    return folder


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory) -> Path:
    """Three trained runs: mtl with two seeds, protonet."""
    folder = tmp_path_factory.mktemp("runs")
    for name, learner, seed in (("mtl-0", "mtl", "0"), ("mtl-1", "mtl", "1"), ("proto", "protonet", "0")):
        words = ["train", *TINY, "--learner", learner, "--seed", seed]
        assert main([*words, "--root", str(root), "--run", str(folder / name)]) == 0
    return folder


@pytest.fixture
def say(root, monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.setenv("KSHOT_ROOT", str(root))
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("words", [[], *[[name] for name in COMMANDS], ["data", "prepare"], ["data", "show"]])
def test_help_teaches(say, words):
    code, out, _ = say(*words, "--help")
    assert code == 0
    assert "examples:" in out
    assert f"  kshot {' '.join(words)}".rstrip() in out.split("examples:")[1]


def test_every_option_of_every_part_has_a_text():
    parts = [
        *learners.values(),
        *backbones.values(),
        *adaptations.values(),
        *SOURCES.values(),
        train,
        evaluate,
        prepare,
    ]
    skipped = {"learner", "data", "split"}
    silent = [f"{part.__name__}.{name}" for part in parts for name, _, _, text in parameters(part) if not text.strip()]
    assert [name for name in silent if name.split(".")[1] not in skipped] == []


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


def test_training_writes_a_run_and_says_what_to_type_next(say, root):
    code, out, _ = say("train", *TINY)
    assert code == 0
    assert "runs/mtl-tiny-conv4-seed0" in out
    assert "best validation" in out
    assert "±" in out
    assert "kshot evaluate runs/mtl-tiny-conv4-seed0" in out
    config = yaml.safe_load(Path("runs/mtl-tiny-conv4-seed0/config.yaml").read_text())
    assert config["backbone"]["width"] == 8
    assert config["learner"]["num_classes"] == 8
    assert config["training"]["shots"] == 2


def test_the_seed_makes_the_run(say, runs, root, tmp_path):
    assert say("train", *TINY, "--seed", 0, "--run", "again")[0] == 0
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (runs / "mtl-0" / "metrics.csv").read_bytes()
    assert (runs / "mtl-1" / "metrics.csv").read_bytes() != (runs / "mtl-0" / "metrics.csv").read_bytes()


def test_set_equals_the_option_and_either_spelling_serves(say):
    words = ["--set", "training.max_epochs=1", "--set", "learner.statistics=joint", "--tasks_per_epoch=3"]
    assert say("train", *TINY, *words, "--run", "changed")[0] == 0
    config = yaml.safe_load(Path("changed/config.yaml").read_text())
    assert config["training"]["max_epochs"] == 1
    assert config["training"]["tasks_per_epoch"] == 3
    assert config["learner"]["statistics"] == "joint"


def test_an_existing_run_is_not_overwritten_and_can_be_resumed(say, runs):
    before = (runs / "mtl-0" / "metrics.csv").read_bytes()
    code, _, err = say("train", *TINY, "--run", runs / "mtl-0")
    assert code == 2
    assert f"kshot train --resume {runs / 'mtl-0'}" in err
    assert (runs / "mtl-0" / "metrics.csv").read_bytes() == before
    assert say("train", "--resume", runs / "mtl-0", "--progress", "false")[0] == 0
    assert (runs / "mtl-0" / "metrics.csv").read_bytes() == before
    code, _, err = say("train", "--resume", runs / "mtl-0", "--shots", 3)
    assert code == 2
    assert "training.shots was 2 and is 3" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["train", "--lerner", "mtl"], "no option --lerner; did you mean --learner?"),
        (["train", "--learner", "mlt"], "no learner 'mlt'; choose one of"),
        (["train", "--backbone", "conv5"], "no backbone 'conv5'; choose one of"),
        (["train", "--data", "tinny"], "no dataset 'tinny'"),
        (["train", "--recipe", "mtl-cifar-fs-5-shot"], "did you mean mtl-cifar-fs-5shot?"),
        (["train", "--learner.statistic", "joint"], "did you mean --learner.statistics?"),
        (
            ["train", "--set", "learner.statistics=both"],
            "--learner.statistics takes one of 'task', 'joint', not 'both'",
        ),
        (["train", "--set", "max_epochs=many"], "--max-epochs takes a whole number, not 'many'"),
        (["train", "--set", "max_epochs"], "--set takes key=value"),
        (["train", "--learner"], "--learner needs a value"),
        (["train", "--learning-rate", "fast"], "--learning-rate takes a number, not 'fast'"),
        (["train", "--data", "tiny", "--ways", "9"], "tiny/train has 8 classes, too few for 9 ways"),
        (["train", "--data", "tiny", "--shots", "9"], "9 shots + 5 queries need 14; choose fewer shots or queries"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder"),
        (["evaluate"], "the following arguments are required: runs"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["evaluate", "nowhere", "--adaptation", "magic"], "no adaptation 'magic'; choose one of"),
        (["compare", "nowhere"], "needs two runs or more"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["data", "prepare", "cifar"], "no dataset 'cifar'; choose one of"),
        (["data", "prepare", "cifar-fs", "--size", "3"], "no option --size; kshot data prepare cifar-fs --help"),
        (["data", "prepare", "--name", "x", "folder", "--size", "big"], "--size takes a whole number, not 'big'"),
        (["data", "prepare", "mixture", "--name", "x"], "required: parts; kshot data prepare mixture --help"),
        (["data", "lst"], "kshot data has no command 'lst'"),
        (["data", "show", "tiny", "--ways", "7"], "tiny/test has 6 classes, too few for 7 ways"),
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


def test_a_place_that_cannot_be_written_is_named(say, runs, tmp_path, monkeypatch):
    assert say("evaluate", runs / "mtl-0", "--tasks", 6, "--queries", 4)[0] == 0
    (tmp_path / "file").write_text("kept")
    for out in ("file/page.html", "file/below/page.html"):
        code, _, err = say("report", runs / "mtl-0", "--out", out)
        assert code == 2
        assert err.startswith("error: file")
        assert "Traceback" not in err
    (tmp_path / "page.html").write_text("kept")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kshot.files.os.fsync", full)
    code, _, err = say("report", runs / "mtl-0", "--out", "page.html")
    assert code == 2
    assert err.startswith("error: page.html: No space left on device")
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["kept", "kept"]


def test_interruption_says_how_to_go_on(say, monkeypatch):
    def stop(_: object) -> None:
        raise KeyboardInterrupt("continue with kshot train --resume runs/x")

    monkeypatch.setattr("kshot.cli.recipes.run", stop)
    code, _, err = say("recipes")
    assert code == 130
    assert "kshot train --resume runs/x" in err


def test_evaluate_saves_every_task_and_prints_intervals(say, runs):
    code, out, _ = say("evaluate", runs / "mtl-0", runs / "mtl-1", "--shots", 1, 2, *MEASURE)
    assert code == 0
    assert "5 ways, 1 and 2 shots, 4 queries a class, 30 tasks of tiny/test" in out
    assert "Over 2 training seeds (mtl-0, mtl-1): 1-shot" in out
    saved = [Evaluation.load(path) for path in (runs / "mtl-0" / "evaluation").glob("*30tasks*.json")]
    assert sorted(result.protocol.shots for result in saved) == [1, 2]
    learner, data = load_run(runs / "mtl-0", root=None)
    for result in saved:
        assert f"{100 * result.mean:.2f} ± {100 * result.ci95:.2f}" in out
        direct = evaluate(learner, data.test, shots=result.protocol.shots, queries=4, tasks=30)
        np.testing.assert_array_equal(direct.accuracies, result.accuracies)


def test_evaluate_passes_options_to_the_adaptation(say, runs):
    words = ["--adaptation", "logistic", "--adaptation.c", "0.5", "--shots", "3", "--style", "csv", *MEASURE]
    code, out, _ = say("evaluate", runs / "mtl-0", *words)
    assert code == 0
    assert "mtl-0,mtl,logistic-c=0.5,float32,tiny,test,5,3,4,,30,0,running,0." in out
    path = next((runs / "mtl-0" / "evaluation").glob("*c=0.5*.json"))
    assert json.loads(path.read_text())["adaptation"] == "logistic-c=0.5"


def test_compare_prints_paired_differences_and_evaluates_only_what_is_missing(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 40, "--queries", 4]
    code, out, err = say(*words)
    assert code == 0
    first, second = (
        Evaluation.load(next((runs / name / "evaluation").glob("*2shot*40tasks*.json"))) for name in ("mtl-0", "proto")
    )
    difference = compare(second, first)
    assert f"{100 * difference.mean:+.2f} ± {100 * difference.ci95:.2f}" in out
    assert "2-shot, minus mtl-0" in out
    assert err.count("evaluating") == 2
    monkeypatch.setattr("kshot.cli.evaluate.evaluate_all", None)
    assert say(*words)[:2] == (0, out)


def test_results_of_other_weights_are_not_used_again_and_copies_keep_theirs(say, runs, tmp_path, monkeypatch):
    words = ["--shots", 2, "--tasks", 42, "--queries", 4]
    assert say("compare", runs / "mtl-0", runs / "proto", *words)[0] == 0
    for name in ("mtl-0", "proto"):
        shutil.copytree(runs / name, tmp_path / name, copy_function=shutil.copyfile)
        os.utime(tmp_path / name / "checkpoints" / "best.pt", (2e9, 2e9))
    with monkeypatch.context() as patch:
        patch.setattr("kshot.cli.evaluate.evaluate_all", None)
        assert say("compare", "mtl-0", "proto", *words)[0] == 0
    shutil.copyfile(runs / "mtl-1" / "checkpoints" / "best.pt", tmp_path / "mtl-0" / "checkpoints" / "best.pt")
    os.utime(tmp_path / "mtl-0" / "checkpoints" / "best.pt", (0, 0))
    assert read_evaluations(tmp_path / "mtl-0") == []
    assert say("compare", "mtl-0", "proto", *words)[2].count("evaluating") == 1
    assert [result.protocol.tasks for result in read_evaluations(tmp_path / "mtl-0")] == [42]


def test_evaluation_under_torchrun_waits_for_nobody(say, runs, monkeypatch):
    def join(*_: object) -> None:
        raise AssertionError("joined the other processes")

    monkeypatch.setattr("torch.distributed.init_process_group", join)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, _ = say("evaluate", runs / "mtl-0", "--tasks", 5, "--queries", 4)
    assert code == 0
    assert "5 ways, 5 shots, 4 queries a class, 5 tasks of tiny/test" in out


def test_precisions_do_not_mix(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 41, "--queries", 4]
    code, out, _ = say(*words)
    assert code == 0
    assert "Precision: float32." in out
    code, other, err = say(*words, "--precision", "bf16")
    assert code == 0
    assert "Precision: bf16." in other
    assert err.count("evaluating") == 2
    monkeypatch.setattr("kshot.cli.evaluate.evaluate_all", None)
    assert say(*words)[:2] == (0, out)
    assert "Precision: float32." in page([runs / "mtl-0", runs / "proto"])


def test_tasks_within_groups_do_not_mix_with_others(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 43, "--queries", 4]
    code, out, _ = say(*words)
    assert code == 0
    code, other, err = say(*words, "--within-groups", "true")
    assert code == 0
    assert "43 tasks of tiny/test, each within one group" in other
    assert err.count("evaluating") == 2
    page([runs / "mtl-0", runs / "proto"])
    monkeypatch.setattr("kshot.cli.evaluate.evaluate_all", None)
    assert say(*words)[:2] == (0, out)
    assert say(*words, "--within-groups", "false")[:2] == (0, out)
    assert "true,43" in say(*words, "--within-groups", "--style", "csv")[1]


def test_report_is_one_page_with_everything_in_it(say, runs):
    assert say("compare", runs / "mtl-0", runs / "proto", *MEASURE)[0] == 0
    code, _out, _ = say("report", runs / "mtl-0", runs / "proto", "--out", "page.html")
    assert code == 0
    text = Path("page.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    assert "tasks of tiny/test" in text
    assert "num_classes: 8" in text


def test_report_prefers_the_learners_own_adaptation(say, runs, tmp_path):
    for name in ("mtl-0", "mtl-1", "proto"):
        shutil.copytree(runs / name, tmp_path / name, ignore=shutil.ignore_patterns("evaluation"))
    measure = ["--shots", 5, "--tasks", 30, "--queries", 3]
    assert say("compare", "mtl-0", "proto", *measure)[0] == 0
    assert say("compare", "mtl-0", "mtl-1", "proto", *measure, "--adaptation", "ridge")[0] == 0
    own = page([Path("mtl-0"), Path("proto")])
    assert "Adaptation of mtl-0: logistic-c=3.0." in own
    assert "Adaptation of proto: centroid." in own
    assert "Adaptation: ridge-" in page([Path("mtl-0"), Path("mtl-1")]), "the only one that both were measured with"


def test_data_commands(say, root):
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


def test_recipes_lists_and_prints(say):
    code, out, _ = say("recipes")
    assert code == 0
    line = {line.split()[0]: line for line in out.splitlines() if line.startswith("mtl")}
    assert "84.1 ± 0.1      MTL with ResNet-12, 5-way 5-shot" in line["mtl-cifar-fs-5shot"]
    assert "71.5 ± 1        MAML with Conv4-32" in line["mtl-cifar-fs-5shot-conv4"], "not MTL's own"
    assert yaml.safe_load(say("recipes", "mtl-cifar-fs-5shot")[1])["learner"]["name"] == "mtl"


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
    assert len({text for name, *_, text in parameters(train) if name.endswith(("ways", "shots", "queries"))}) == 6
    assert len({text for name, *_, text in parameters(evaluate) if name in ("ways", "shots", "queries")}) == 3


def test_switches_need_no_value():
    options = Options("kshot test", "", [])
    options.add("--overwrite", bool, False, "a switch")
    options.add("--size", int, 3, "a number")
    assert options.parse(["--overwrite", "--size", "4"]).as_dict() == {"overwrite": True, "size": 4}
    for word in ("false", "False", "no", "off"):
        assert options.parse(["--overwrite", word]).overwrite is False
        assert options.parse([f"--overwrite={word}"]).overwrite is False
    assert options.parse(["--overwrite", "Yes"]).overwrite is True
    with pytest.raises(ConfigError, match="--overwrite takes true or false, not 'maybe'"):
        options.parse(["--overwrite=maybe"])
