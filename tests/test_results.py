"""Results as data: the pages of the repository are those that its records give, and no measured number is typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from cli_toys import prepare_tiny

import kshot
from kshot.errors import ConfigError, DataError
from kshot.files import write_text
from kshot.studies import plan as plans
from kshot.studies.cell import run_cell
from kshot.studies.records import add, build, value_text, write

REPOSITORY = Path(__file__).parents[1]
SECTIONS = sorted((REPOSITORY / "results").iterdir())
STUDY = """
title: Two learners
common: {validation_tasks: 4, backbone.width: 8, meta_batch: 2, tasks_per_epoch: 4, max_epochs: 1, ways: 5, queries: 2,
         validation_queries: 2}
data: [tiny]
seeds: [0, 1]
cells: {mtl: {recipe: mtl-cifar-fs-5shot-conv4}}
measure: {ways: 5, queries: 2, tasks: 12}
"""


def test_the_pages_are_up_to_date():
    stale = [str(path) for path, text in build(REPOSITORY).items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: kshot results build"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda path: path.name)
def test_no_measured_number_is_typed(section):
    """What has an interval is a record, whose command, commit and hardware are known."""
    text = (section / "page.md").read_text(encoding="utf-8")
    assert re.findall(r"\d ± \d", text) == []
    for path in section.glob("table-*/[0-9]*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["values"], path
        assert {"hardware", "commands", "commits", "training_seeds"} <= record["known"].keys(), path
    if (section / "facts.json").exists():
        facts = json.loads((section / "facts.json").read_text(encoding="utf-8"))
        assert [name for name in facts if f"{{{{ fact: {name} }}}}" not in text] == [], "facts that no page speaks of"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"mean": 2.5, "ci95": 0.36, "digits": 2, "signed": True}, "+2.50 ± 0.36"),
        ({"mean": 1.5, "ci95": None, "digits": 1}, "1.5"),
        (20368, "20,368"),
        ("23.4 min", "23.4 min"),
    ],
)
def test_a_value_has_its_digits(value, text):
    assert value_text(value) == text


def test_a_change_of_a_record_changes_the_pages(tmp_path):
    shutil.copytree(REPOSITORY / "results", tmp_path / "results")
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    (tmp_path / "docs").mkdir()
    write(tmp_path)
    assert write(tmp_path) == []
    path = next((tmp_path / "results" / "09-demo").glob("table-1/01-*.json"))
    record = json.loads(path.read_text())
    record["values"]["1-shot"]["mean"] = 12.34
    path.write_text(json.dumps(record))
    assert write(tmp_path) == [tmp_path / "docs" / "results.md", tmp_path / "README.md"]
    assert all("12.34 ± " in page.read_text() for page in (tmp_path / "docs" / "results.md", tmp_path / "README.md"))
    write_text(tmp_path / "results" / "09-demo" / "page.md", "{{ fact: nothing }}")
    with pytest.raises(DataError, match=r"the fact nothing, which facts\.json does not have|cannot be read"):
        build(tmp_path)
    with pytest.raises(ConfigError, match="holds no results"):
        build(tmp_path / "docs")


def test_a_study_becomes_records(tmp_path, monkeypatch):
    prepare_tiny(tmp_path / "root")
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: None)
    write_text(tmp_path / "two.yaml", STUDY)
    study = kshot.Study(tmp_path / "two.yaml", folder=tmp_path / "study", root=tmp_path / "root")
    with pytest.raises(DataError, match="no cell of two is done"):
        add(study, tmp_path)
    for cell in study.cells:
        study.cell_folder(cell).write(cell)
        run_cell(study.cell_folder(cell), root=tmp_path / "root")
    write_text(tmp_path / "results" / "00-head" / "page.md", "# Results\n\nText.\n")
    record_path, page = add(study, tmp_path)
    assert page == tmp_path / "results" / "01-two" / "page.md"
    record = json.loads(record_path.read_text())
    first, second = (kshot.Run(study.cell_folder(cell).run_path).evaluations[0] for cell in study.cells)
    (measured,) = record["measured"]
    assert measured["per_seed"] == {"0": first.mean, "1": second.mean}
    assert measured["ci95_over_tasks"] > 0
    assert measured["ci95_over_seeds"] >= 0
    assert record["seeds"] == [0, 1]
    assert record["images"] == {"0": 4 * 35, "1": 4 * 35}
    assert record["hardware"]["threads"] >= 1
    assert None not in record["processor_seconds"].values()
    write(tmp_path)
    assert f"{100 * measured['mean']:.2f} ± " in (tmp_path / "docs" / "results.md").read_text()
