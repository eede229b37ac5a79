"""What a trial of a study concludes from its times."""

import pytest

from kshot.studies.trial import fixed_and_each


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize(("fixed", "each"), [(5.0, 3.0), (20.0, 1.0), (0.1, 0.001), (0.0, 0.5)])
def test_a_trial_finds_what_none_and_what_each_costs(fixed: float, each: float, first: int) -> None:
    tried = []

    def measured(size: int) -> float:
        tried.append(size)
        return fixed + size * each

    found = fixed_and_each(measured, first=first, at_least=0.25)
    assert found == pytest.approx((fixed, each))
    assert measured(tried[-1]) - measured(tried[-1] // 2) >= max(0.25, measured(tried[-1] // 2) / 4)


def test_a_trial_takes_no_more_than_it_needs() -> None:
    tried = []
    fixed_and_each(lambda size: tried.append(size) or 3.0 * size, at_least=2.0)  # a step of seconds
    assert tried == [1, 2]


def test_a_trial_of_what_costs_nothing_ends() -> None:
    assert fixed_and_each(lambda size: 0.0, at_least=0.25) == (0.0, 0.0)
