"""`kshot report` end to end: the page, what it prefers, and places that cannot be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli_toys import MEASURE, page_of


def test_report_is_one_page_with_everything_in_it(say, runs):
    assert say("compare", runs / "mtl-0", runs / "proto", *MEASURE)[0] == 0
    code, _out, _ = say("report", runs / "mtl-0", runs / "proto", "--out", "page.html")
    assert code == 0
    text = Path("page.html").read_text()
    assert text.count("data:image/png;base64,") == 3
    assert "<h2>Time</h2>" in text
    assert "http" not in text
    assert "tasks of tiny/test" in text
    assert "num_classes: 8" in text


def test_report_prefers_the_learners_own_adaptation(say, runs, tmp_path):
    for name in ("mtl-0", "mtl-1", "proto"):
        shutil.copytree(runs / name, tmp_path / name, ignore=shutil.ignore_patterns("evaluation"))
    measure = ["--shots", 5, "--tasks", 30, "--queries", 3]
    assert say("compare", "mtl-0", "proto", *measure)[0] == 0
    assert say("compare", "mtl-0", "mtl-1", "proto", *measure, "--adaptation", "ridge")[0] == 0
    own = page_of([Path("mtl-0"), Path("proto")])
    assert "Adaptation of mtl-0: logistic-c=3.0." in own
    assert "Adaptation of proto: centroid." in own
    assert "<h2>Time</h2>" not in page_of([Path("mtl-0")]), "there is nothing to compare"
    assert "Adaptation: ridge-" in page_of([Path("mtl-0"), Path("mtl-1")]), "the only one that both were measured with"


def test_runs_on_two_datasets_share_a_page(say, runs, tmp_path):
    assert say("evaluate", runs / "mtl-0", "--shots", 2, *MEASURE)[0] == 0
    shutil.copytree(runs / "mtl-0", tmp_path / "elsewhere")
    for path in [tmp_path / "elsewhere" / "config.yaml", *(tmp_path / "elsewhere" / "evaluation").iterdir()]:
        without_checksum = "\n".join(line for line in path.read_text().splitlines() if "checksum" not in line)
        path.write_text(without_checksum.replace("tiny", "other").replace(",\n}", "\n}"))
    (tmp_path / "elsewhere" / "checkpoints" / "last.pt").unlink()  # which says what the run was trained on
    assert say("report", runs / "mtl-0", "elsewhere")[0] == 0
    text = Path("report.html").read_text()
    assert "different datasets (tiny, other)" in text
    assert "kshot compare" not in text
    assert [text.count(f"30 tasks of {name}/test</h2>") for name in ("tiny", "other")] == [1, 1]


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
    assert err.startswith("error: page.html: the disk is full; free some space")
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["kept", "kept"]
