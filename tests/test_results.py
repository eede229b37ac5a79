"""Results as data: the pages of the repository are those that its records give, and no measured number is typed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from cli_toys import prepare_tiny

import kshot
from kshot.errors import ConfigError, DataError
from kshot.experiments import ClosenessDepth
from kshot.files import write_json, write_text
from kshot.studies import plan as plans
from kshot.studies.cell import run_cell
from kshot.studies.record_values import value_text
from kshot.studies.records import add, build, write

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
# Decimals, percentages and powers of ten of a page that were not measured here: options, definitions, versions, bounds
# that a test holds, and what the papers print
STATED = {
    "00-head": "3.11.7 2.13.0",
    "01-cifar-fs-resnet12": "86 72",
    "01-cifar-fs-conv4-64": "72.0 2.8 0.8 0.8 0.1 5e-4 0.01",
    "02-merged-labels": "0.4 0.02 0.1 0.01",
    "05-cifar-fs-every-learner": "3.162",
    "07-w21-figure2-conv4": "0.1",
    "07-cost": "23 50.4 23 2.2 60 65 60",
    "11-sinusoids": "0.1 0.01 0.01",
    "12-speed": "1.05 1e-12 75",
    "14-mtl-variants": "0.3 0.1 0.1 0.01 25",
    "90-not-measured": "2.88",
    "heads": "0.5 0.99 0.8 6.2 1.8 6.2 1.9 12.5 3.8 10.7 3.8 0.0 0.1 87.69 90.68 1.5 1.5",
    "photographs": "95 90 90 0.7 0.3.0 1e-4",
    "scaling": "16.5 6.9 0.5 12.4",
    "theory": "1e-13 1e-12 1e-3 1e-11 1e-11 0.3 1e12 0.6.5 0.5.0 1.0 2.5 "
    "2.5 0.005 1e-3 0.005 0.1 0.5 0.5 0.5 0.005 0.5 0.2 0.1 0.05 1e-3 70",
    "tsa-maml": "0.95",
}
APART = r"<!--.*?-->|```.*?```|^ {4}.*?$|`[^`]*`|\{\{.*?\}\}|(?<=\])\([^)]*\)|95 ?%\s(?:confidence\s)?intervals?"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def numbers_of(page: str) -> list[str]:
    """The numbers of a page that look measured, outside of code, comments, links and the places of records."""
    page = re.sub(APART, " ", page, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<![\w.-])[+-]?(?:[\d,]*\d(?:\.\d+)+|\d[\d.]*e-?\d+(?!\w)|\d+(?= ?%)|\d+(?= ±| times))", page)


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
        shown = {name for name in facts if f"<!-- fact: {section.name.partition('-')[2]}/{name} -->" in README}
        shown |= {name for name in facts if f"{{{{ fact: {name} }}}}" in text}
        assert facts.keys() - shown == set(), "facts that no page speaks of"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda path: path.name)
def test_a_number_on_a_page_is_a_record_or_known_not_to_be_measured(section):
    typed = Counter(numbers_of((section / "page.md").read_text(encoding="utf-8")))
    stated = Counter(STATED.get(section.name, "").split())
    assert typed == stated, "make a record of what is measured, and name in STATED what is not"


def test_numbers_that_look_measured_are_found():
    page = """falls 64.6 ± 9.3 times to 4e-17, by 38 % or 1,234.5 points, `0.1`,
{{ fact: a-1.5 }}, [2.5](a-3.5)
at L = 10

    0.7 s
"""
    assert numbers_of(page) == ["64.6", "9.3", "4e-17", "38", "1,234.5", "2.5"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"mean": 2.5, "ci95": 0.36, "digits": 2, "signed": True}, "+2.50 ± 0.36"),
        ({"mean": 1.5, "ci95": None, "digits": 1}, "1.5"),
        (20368, "20,368"),
        ("23.4 min", "23.4 min"),
        ({"mean": 57, "ci95": 3, "digits": 0, "unit": " %"}, "57 ± 3 %"),
        ({"mean": 4.1e17, "digits": 0, "scientific": True}, "4e17"),
        ({"mean": 0.0, "digits": 0, "scientific": True}, "0"),
    ],
)
def test_a_value_has_its_digits(value, text, tmp_path):
    assert value_text(value, tmp_path) == text


@pytest.fixture
def measured(tmp_path):
    """A folder with what an experiment writes."""
    write_text(tmp_path / "a/a.csv", "depth,gap,gap_ci95,seeds\n3,16.26,0.25,5\n10,4.0,,5\n20,-0.0001,0.0002,5\n")
    write_json(tmp_path / "a/a.json", {"verdict": "goes from 1 to 2, which is 1,064.6 ± 9.3 times less (last -1e-3)"})
    return tmp_path


def cell(depth, **more):
    return {"from": "a/a.csv", "row": {"depth": depth}, "column": "gap", "digits": 1} | more


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (cell(3), "16.3 ± 0.2"),
        (cell(3, interval=False), "16.3"),
        (cell(10, signed=True), "+4.0"),
        (cell(20, signed=True), "+0.0 ± 0.0"),
        (cell(3, over=cell(10)), "4.1"),
        ({**cell(3), "row": {"seeds": 5}, "take": "largest"}, "16.3 ± 0.2"),
        (cell(3, scientific=True), "1.6e1"),
        ({"from": "a/a.json", "after": "which is "}, "1,064.6 ± 9.3"),
        ({"from": "a/a.json", "after": "(last "}, "-1e-3"),
    ],
)
def test_a_value_is_read_from_what_an_experiment_wrote(value, text, measured):
    assert value_text(value, measured) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (cell(4), r"a\.csv has no gap in a row with \{'depth': 4\}"),
        (cell(3, column="size"), r"a\.csv has no size in a row"),
        ({**cell(3), "row": {"seeds": 5}}, r"a\.csv has 3 rows with \{'seeds': 5\}; name one"),
        (
            {"from": "a/a.json", "after": "from nowhere "},
            r"the verdict of .*a\.json has no number after 'from nowhere '",
        ),
        ({"from": "a/b.json", "after": "which is "}, r"b\.json cannot be read"),
        ({**cell(3), "from": "a/b.csv"}, r"b\.csv cannot be read"),
    ],
)
def test_a_value_that_an_experiment_did_not_write_is_an_error(value, message, measured):
    with pytest.raises(DataError, match=message):
        value_text(value, measured)


def test_the_tables_of_the_theory_are_what_its_commands_compute():
    """Three depths of the first table again; the rest of its numbers come from the same file."""
    depth = ClosenessDepth(depths=[3, 5, 10]).run()
    kept = (REPOSITORY / "results/theory/depth/closeness-depth.csv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(kept[0].split(","), line.split(","))) for line in kept[1:4]]
    assert [row["depth"] for row in rows] == ["3", "5", "10"]
    for row, again in zip(rows, depth.rows, strict=True):
        for name in ("distance", "distance_ci95", "rms_per_point", "rms_per_point_ci95"):
            assert float(row[name]) == pytest.approx(again[name], rel=1e-6)


def test_what_experiments_wrote_is_read():
    """No file lies next to the pages that no number comes from."""
    records = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "results").glob("**/*.json"))
    folders = {path.parent for path in (REPOSITORY / "results").glob("*/*/*.csv")}
    assert REPOSITORY / "results/theory/depth" in folders
    assert [str(folder) for folder in folders if f'"from": "{folder.name}/' not in records] == []


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
    facts = tmp_path / "results" / "09-demo" / "facts.json"
    facts.write_text(facts.read_text().replace("88 % are recognised", "89 % are recognised"))
    assert write(tmp_path) == [tmp_path / "README.md"]
    assert "<!-- fact: demo/signs -->89 % are" in (tmp_path / "README.md").read_text()
    write_text(tmp_path / "results" / "09-demo" / "page.md", "{{ fact: nothing }}")
    with pytest.raises(DataError, match=r"the fact nothing, which .*facts\.json does not have"):
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
