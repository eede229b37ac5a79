"""Content of made-up runs, for the tests of tables, pictures and pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from kshot.evaluation.results import Evaluation, Protocol
from kshot.report.content import RunContent

# names that a page, a picture and a spreadsheet may trip over
HOSTILE_NAMES = [
    "costs $5 and $\\frac{",
    "<script>alert('x')</script>&amp;",
    "escape \x1b[31m, bell \x07, return \r, line\nbreak",
    "not UTF-8 \udcff",
    "turned \u202e round",
    "=cmd|'/c calc'!A1",
    "_underscore_ | pipe `code` *star* [link](x)",
    "{{ 7 * 7 }}{% raw %}",
    "long-" * 50,
]


def evaluation(number: int, *, tasks: int = 50, measured: dict[str, Any] | None = None, **protocol: Any) -> Evaluation:
    """Made-up accuracies on 5-way 5-shot tasks of cifar-fs; `measured` and `protocol` replace fields."""
    fields = {"dataset": "cifar-fs", "split": "test", "ways": 5, "shots": 5, "queries": 15, "seed": 0}
    at = Protocol(**(fields | {"tasks": tasks, "statistics": "running"} | protocol))
    accuracies = np.random.default_rng(number).uniform(0.4, 0.9, tasks)
    return Evaluation("mtl", **({"adaptation": "logistic-c=3.0", "values": accuracies} | (measured or {})),
                      protocol=at, seconds=1.0)  # fmt: skip


def config(dataset: str = "cifar-fs", **training: Any) -> dict[str, Any]:
    """The configuration of a made-up run of MTL with Conv4-64; `training` replaces its options."""
    options = {"ways": 20, "shots": 5, "queries": 5, "validation_ways": 5, "seed": 0, "augment": True}
    form = {"mean": [0.5] * 3, "std": [0.25] * 3, "augment": "photographs"}
    return {
        "data": {"name": dataset, "image_shape": [3, 32, 32], "normalization": form},
        "backbone": {"name": "conv4", "width": 64},
        "learner": {"name": "mtl", "num_classes": 64},
        "training": options | training,
    }


def content(name: str, seed: int = 0, *, epochs: int = 12, **fields: Any) -> RunContent:
    """A run of this name whose curves rise; `fields` replaces what `RunContent` holds."""
    epoch = np.arange(1.0, epochs + 1)
    generator = np.random.default_rng(seed)
    validation = 0.8 - 0.4 * np.exp(-epoch / 4) + generator.normal(0, 0.01, epochs)
    metrics = {"epoch": epoch, "accuracy": validation - 0.1, "validation_accuracy": validation}
    metrics["validation_ci95"] = np.full(epochs, 0.01)
    timing = {"seconds": generator.uniform(20, 40, epochs), "images_per_second": generator.uniform(2e3, 3e3, epochs)}
    given = {"config": config(), "evaluations": [evaluation(seed)], "metrics": metrics, "timing": timing}
    return RunContent(name, f"runs/{name}", **(given | fields))
