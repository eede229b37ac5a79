"""Agreement of groups and domains against scikit-learn, and its intervals against draws of single tasks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from kshot.evaluation.agreement import agreement


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_it_is_that_of_scikit_learn(groups: int, share: float) -> None:
    generator = np.random.default_rng(0)
    domains = np.asarray(["cards", "dogs", "butterflies"])[generator.integers(3, size=80)]
    known = np.where(domains == "dogs", 1, 0) % groups
    chosen = np.where(generator.random(80) < share, known, generator.integers(groups, size=80))
    found = agreement(chosen, domains)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(domains, chosen), abs=1e-12)
    assert found.ari == pytest.approx(adjusted_rand_score(domains, chosen), abs=1e-12)


def test_groups_that_are_the_domains_agree_wholly() -> None:
    domains = np.repeat(["a", "b", "c"], 30)
    found = agreement(np.repeat([2, 0, 1], 30), domains)
    assert (found.nmi, found.ari) == pytest.approx((1, 1))
    assert np.allclose([*found.nmi_interval, *found.ari_interval], 1)


def test_intervals_are_those_of_tasks_drawn_again() -> None:
    generator = np.random.default_rng(1)
    domains = generator.integers(3, size=120)
    groups = np.where(generator.random(120) < 0.8, domains, generator.integers(3, size=120))
    draws = generator.integers(120, size=(600, 120))
    drawn = [
        (normalized_mutual_info_score(domains[d], groups[d]), adjusted_rand_score(domains[d], groups[d])) for d in draws
    ]
    expected = np.percentile(drawn, (2.5, 97.5), axis=0).T
    found = agreement(groups, domains)
    np.testing.assert_allclose([found.nmi_interval, found.ari_interval], expected, atol=0.03)
    assert found.nmi_interval[0] < found.nmi < found.nmi_interval[1]
