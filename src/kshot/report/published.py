"""What papers report for a learner, for the row of its run in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kshot import recipes
from kshot.evaluation.results import Evaluation
from kshot.recipes import Published
from kshot.report.rows import Row


def row_of(name: str, config: Mapping[str, Any], results: Sequence[Evaluation]) -> Row:
    """The row of a run of this configuration in a table, with what papers report for it."""
    domains = [
        {
            domain: value
            for domain in set(result.domains or ())
            if (value := published_for(config, result, domain=domain))
        }
        for result in results
    ]
    return Row(name, results, [published_for(config, result) for result in results], domains)


def published_for(config: Mapping[str, Any], result: Evaluation, *, domain: str | None = None) -> Published | None:
    """What a paper reports for this learner and backbone on tasks of this kind, or None.

    Published values are those of each learner's own adaptation and of the dataset's own tasks, so there is none for
    another adaptation, or if `within_domain` was chosen.

    Parameters
    ----------
    config
        The sections data, backbone and learner of the run.
    result
        What was measured.
    domain
        The domain of a mixture whose tasks alone count; None for all tasks.
    """
    at = result.protocol
    if (
        not result.own_adaptation
        or at.within_domain is not None
        or at.split != "test"
        or at.dataset != config["data"]["name"]
    ):
        return None
    learner = recipes.learner_in_papers(config["learner"], at.dataset)
    backbone = recipes.backbone_in_papers(config["backbone"])
    if learner is None or backbone is None:
        return None
    dataset = at.dataset if domain is None else f"{at.dataset}/{domain}"
    return recipes.published(
        dataset, ways=at.ways, shots=at.shots, learner=learner, backbone=backbone, statistics=at.statistics
    )
