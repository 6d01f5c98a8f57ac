"""The tests that decide, on counts and arrays where the truth is known."""

import numpy as np
import pytest

from understudy.gate import checks
from understudy.probation import looks
from understudy.probation.looks import FAILED, REFUSED, SLOW, Kind, Share

NONE = Share(0, 0)


def test_looks_grow_by_half_and_all_their_errors_add_up_to_five_per_cent() -> None:
    sizes = [looks.size(number) for number in range(1, 8)]
    assert sizes == [20, 30, 45, 68, 102, 152, 228]
    assert [looks.number(requests) for requests in (0, 19, 20, 29, 30, 227, 228)] == [0, 0, 1, 1, 2, 6, 7]
    assert looks.TESTS * sum(looks.level(number) for number in range(1, 10_000)) == pytest.approx(
        checks.SPENT, rel=1e-3
    )


@pytest.mark.parametrize(
    ("kind", "now", "before", "is_bad"),
    [
        (FAILED, Share(0, 20), Share(0, 1_000), False),
        (FAILED, Share(3, 20), Share(0, 1_000), True),
        (FAILED, Share(3, 20), Share(150, 1_000), False),  # no more than before
        (FAILED, Share(130, 100_000), Share(50, 100_000), False),  # certainly more, and too little to matter
        (FAILED, Share(3, 20), Share(0, 99), True),  # too few before, so it is held against 1 %
        (FAILED, Share(1, 20), NONE, False),
        (REFUSED, Share(2, 20), NONE, False),
        (REFUSED, Share(8, 20), NONE, True),
        (SLOW, Share(5, 20), NONE, True),
        (SLOW, Share(5, 20), Share(250, 1_000), False),  # the one before was as slow
        (SLOW, Share(8, 1_000), Share(0, 100_000), False),  # more than before, and not 1 %
    ],
)
def test_what_goes_wrong_more_often_is_a_sign(kind: Kind, now: Share, before: Share, is_bad: bool) -> None:
    sign = looks.share(kind, now, before, look=1)
    assert sign.is_bad == is_bad
    assert sign.figures[f"{kind.called} share"] == now.value
    assert str(now) in sign.text


def test_a_later_look_asks_for_more() -> None:
    now, before = Share(3, 20), Share(0, 150)
    assert [looks.share(FAILED, now, before, look).is_bad for look in (1, 9)] == [True, False]


def test_scores_have_to_be_beyond_the_bound_with_their_whole_interval() -> None:
    rng = np.random.default_rng(0)
    held_out, requests = rng.normal(0, 0.1, 186), np.arange(200)
    for shift, is_bad in ((0.0, False), (0.1, False), (0.2, True), (-0.2, True)):
        sign = looks.scores(rng.normal(shift, 0.1, 200), requests, held_out, 0.1, look=5)
        assert sign.is_bad == is_bad, shift
        assert sign.figures["score shift low"] < shift < sign.figures["score shift high"]


def test_what_is_expected_is_how_far_apart_they_were_on_held_out_rows() -> None:
    rng = np.random.default_rng(0)
    apart, requests = rng.normal(0.3, 0.05, 200), np.arange(200)
    assert not looks.scores(apart, requests, rng.normal(0.3, 0.05, 186), 0.1, look=1).is_bad
    assert looks.scores(apart, requests, rng.normal(0, 0.05, 186), 0.1, look=1).is_bad


def test_rows_of_one_request_are_no_independent_witnesses() -> None:
    held_out, rng = np.random.default_rng(1).normal(0, 0.1, 186), np.random.default_rng(0)
    apart = np.repeat(rng.normal(0.17, 0.1, 5), 40)  # of five requests with 40 equal rows each
    assert looks.scores(apart, np.arange(200), held_out, 0.1, look=1).is_bad
    assert not looks.scores(apart, np.repeat(np.arange(5), 40), held_out, 0.1, look=1).is_bad
    assert not looks.scores(apart[:1], [0], held_out, 0.1, look=1).is_bad
