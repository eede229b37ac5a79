"""benchmarks/gpu.py, for which no GPU is at hand: that it runs, and says what it skipped."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch, capsys):
    def run(*words: str) -> str:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", *words])
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is skipped without a GPU")
def test_the_script_runs_on_a_cpu_and_says_what_it_skipped(script):
    out = script("--minutes", "9")
    assert "its numbers say nothing of a GPU" in out
    assert "solvers on CUDA: skipped, no GPU" in out
    assert "the recipe of ResNet-12: skipped, no --root" in out
    assert out.count("MAML, second order") == 2
    assert out.count("times the time") == 2


def test_a_part_that_does_not_fit_is_skipped(script):
    assert "speeds of ResNet-12: skipped, 0.0 minutes are left, and it needs 4" in script("--minutes", "0.01")
