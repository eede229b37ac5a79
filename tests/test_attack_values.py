"""Values of options: refused in one line before any work, or meant."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from attack.tally import Answer, refusal
from cli_toys import TINY

from kshot.files import csv_table

HUGE = str(10**20)
TRAIN = ["train", *TINY, "--max-epochs", "1"]
EVALUATE = ["evaluate", "trained", "--tasks", "5", "--queries", "3"]


@pytest.mark.parametrize(
    "words",
    [
        *[[*TRAIN, option, HUGE] for option in ("--shots", "--tasks-per-epoch", "--meta-batch", "--seed")],
        *[[*TRAIN, option, HUGE] for option in ("--validation-tasks", "--max-epochs", "--backbone.width")],
        [*TRAIN, "--backbone.width", "10000000"],
        *[[*TRAIN, "--device", device] for device in ("mps", "meta", "cpu:7", "gpu", "")],
        *[[*TRAIN, "--run", run] for run in ("", "a\0b", "---", "x" * 300)],
        [*TRAIN, "--run="],
        *[[*TRAIN, "--learning-rate", rate] for rate in ("nan", "inf", "fast")],
        *[[*TRAIN, "--time-limit", minutes] for minutes in ("nan", "inf", "-1")],
        [*TRAIN, "--factor", "0.1", "0.2"],
        *[[*TRAIN, "--shots", *shots] for shots in (["1", "1"], ["1e20"], ["1.5"], ["true"], ["0"])],
        *[[*EVALUATE, "--shots", *shots] for shots in (["1", "1"], [HUGE], ["-1"])],
        *[[*EVALUATE, option, HUGE] for option in ("--seed", "--ways", "--queries", "--tasks")],
        *[[*EVALUATE, "--device", device] for device in ("mps", "meta", "cpu:7")],
        [*EVALUATE, "--statistics", "running", "running"],
        *[["report", "trained", "--out", out] for out in ("", ".")],
        *[["data", "verify", name] for name in ("../root/tiny", "tiny/.", "", "/etc", "..")],
        ["data", "show", "../root/tiny"],
        ["data", "show", "tiny", "--out", ""],
        ["train", "--data", "../root/tiny", "--max-epochs", "1"],
        *[["train", "--resume", *folder] for folder in ([""], [], ["nowhere"])],
    ],
    ids=lambda words: " ".join(word for word in words if word not in TINY)[:60],
)
def test_is_refused_in_one_line(words: list[str], say: Any, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "mtl-0", tmp_path / "trained")
    code, out, err = say(*words)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert refusal(Answer(code, out, lines[0] if lines else err, "")) == ""
    assert len(err.splitlines()) == len(lines) or "evaluating" in err


@pytest.mark.parametrize(
    ("run", "folder"), [("# c", "# c"), ("~/a run", "home/a run"), ("-a", "-a"), ("=x", "=x"), ("$HOME", "$HOME")]
)
def test_a_path_is_taken_as_it_is_typed(
    run: str, folder: str, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert say(*TRAIN, "--run", run)[0] == 0
    assert (tmp_path / folder / "config.yaml").exists()


def test_text_that_a_spreadsheet_would_obey_gets_an_apostrophe() -> None:
    cells = ["=cmd|' /C calc'!A0", "@x", "+x", "-x", "-1.5", "+1e-3", "a=b", "\udcff", Path("=x"), -1.5, None]
    (row,) = csv.reader(io.StringIO(csv_table(["=title"], [cells]).partition("\n")[2]))
    assert row == ["'=cmd|' /C calc'!A0", "'@x", "'+x", "'-x", "-1.5", "+1e-3", "a=b", "\\udcff", "'=x", "-1.5", ""]
    assert csv_table(["=title"], []) == "'=title\n"


def test_control_characters_of_names_do_not_reach_the_terminal(say: Any, runs: Path, tmp_path: Path) -> None:
    name = "\x1b[31mred\u202e"
    shutil.copytree(runs / "mtl-0", tmp_path / name)
    code, out, err = say("evaluate", name, "--tasks", 5, "--queries", 3)
    assert code == 0
    assert "\\x1b[31mred\\u202e" in out
    _, _, missing = say("evaluate", f"{name}\n", "--tasks", 5)
    for text in (out, err, missing):
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
    assert len(missing.splitlines()) == 1
