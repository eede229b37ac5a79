"""`kshot train` and `kshot recipes` end to end on a tiny dataset."""

from __future__ import annotations

from pathlib import Path

import yaml
from cli_toys import TINY

from kshot.cli.train import training_options


def test_training_writes_a_run_and_says_what_to_type_next(say):
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


def test_the_seed_makes_the_run(say, runs, tmp_path):
    assert say("train", *TINY, "--seed", 0, "--run", "again")[0] == 0
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (runs / "mtl-0" / "metrics.csv").read_bytes()
    assert (runs / "mtl-1" / "metrics.csv").read_bytes() != (runs / "mtl-0" / "metrics.csv").read_bytes()


def test_set_equals_the_option_and_either_spelling_serves(say):
    words = ["--set", "training.max_epochs=1", "--set", "learner.normalize_over=batch", "--tasks_per_epoch=3"]
    assert say("train", *TINY, *words, "--run", "changed")[0] == 0
    config = yaml.safe_load(Path("changed/config.yaml").read_text())
    assert config["training"]["max_epochs"] == 1
    assert config["training"]["tasks_per_epoch"] == 3
    assert config["learner"]["normalize_over"] == "batch"


def test_another_schedule_than_the_recipes_has_none_of_its_steps():
    for words, milestones, factor in (([], [20, 40, 50], [0.06, 0.2, 0.2]), (["--schedule", "cosine"], None, 0.1)):
        typed = ["--recipe", "metaoptnet-cifar-fs-5way-5shot", *words]
        _, options, defaults = training_options(typed)
        given = options.parse(typed, defaults)
        assert (given.milestones, given.factor) == (milestones, factor)


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


def test_recipes_lists_and_prints(say):
    code, out, _ = say("recipes")
    assert code == 0
    line = {line.split()[0]: line for line in out.splitlines() if line.startswith("mtl")}
    assert "84.1 ± 0.1      MTL with ResNet-12, 5-way 5-shot" in line["mtl-cifar-fs-5shot"]
    assert "71.5 ± 1        MAML with Conv4-32" in line["mtl-cifar-fs-5shot-conv4"], "not MTL's own"
    assert yaml.safe_load(say("recipes", "mtl-cifar-fs-5shot")[1])["learner"]["name"] == "mtl"
    assert yaml.safe_load(say("recipes", "maml-cifar-fs-10way-1shot")[1])["learner"]["inner_rate"] == 0.1
    family = [" ".join(line.split()) for line in say("recipes", "maml-cifar-fs-5way")[1].splitlines()]
    shot = "maml with conv4-32, 5-way 1-shot"
    assert f"maml-cifar-fs-5way-1shot conv4 51.98 ± 0.87 {shot}, inductive statistics; Z21 table 2" in family
    assert f"57.46 ± 0.9 {shot}, transductive statistics; Z21 table 2" in family
    assert not any("10way" in line for line in family)
