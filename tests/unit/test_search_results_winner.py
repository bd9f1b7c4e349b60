"""Who wins among the confirmed configurations, and what score is promised."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from common.search_results.records import Confirmation
from common.search_results.winner import choose_winner


def confirmation(number, *values):
    return Confirmation(number, {}, tuple(range(len(values))), values)


def test_the_best_mean_over_all_seeds_wins_not_the_highest_score_of_the_search():
    lucky, steady = confirmation(0, 99.0, 95.0, 95.2), confirmation(1, 97.5, 97.0, 97.4)
    winner = choose_winner([lucky, steady], "maximize")
    assert winner.number == 1
    assert winner.spread == pytest.approx(stdev([97.5, 97.0, 97.4]))


def test_of_losses_the_lowest_wins():
    assert choose_winner([confirmation(0, 0.1, 0.4, 0.5), confirmation(1, 0.2, 0.2, 0.2)], "minimize").number == 1


def test_equals_go_to_the_earlier_trial_whatever_their_order():
    entries = [confirmation(7, 90.0, 91.0, 92.0), confirmation(3, 90.0, 92.0, 91.0)]
    assert choose_winner(entries, "maximize").number == choose_winner(entries[::-1], "maximize").number == 3


def test_a_configuration_that_diverges_with_a_seed_comes_after_those_that_do_not():
    entries = [confirmation(0, 99.0, 99.0, None), confirmation(1, 91.0, 90.0, 90.0)]
    assert choose_winner(entries, "maximize").number == 1


def test_without_a_score_of_a_fresh_seed_nobody_wins():
    assert choose_winner([], "maximize") is None
    assert choose_winner([confirmation(0, 99.0), confirmation(1, 98.0, None, None)], "maximize") is None


def test_the_search_s_own_score_has_no_part_in_the_estimate():
    estimates = {choose_winner([confirmation(0, own, 95.0, 96.0)], "maximize").estimate for own in (96.0, 99.9)}
    assert estimates == {95.5}


def test_clear_differences_are_not_shrunk_and_chance_ones_are_shrunk_to_the_common_mean():
    clear = [confirmation(0, 97.0, 97.0, 97.0), confirmation(1, 90.0, 90.0, 90.0)]
    assert choose_winner(clear, "maximize").estimate == pytest.approx(97.0)
    chance = [confirmation(0, 96.0, 94.0, 96.4), confirmation(1, 95.9, 96.3, 93.9), confirmation(2, 95.8, 95.1, 95.0)]
    assert choose_winner(chance, "maximize").estimate == pytest.approx(fmean([94.0, 96.4, 96.3, 93.9, 95.1, 95.0]))


def test_what_a_seed_does_to_all_alike_is_no_chance_between_them():
    def entries(effect):
        return [confirmation(0, 97.0, 96.0, 96.2 + effect), confirmation(1, 97.0, 95.0, 95.3 + effect)]

    plain, shifted = (choose_winner(entries(effect), "maximize") for effect in (0.0, -8.0))
    assert shifted.estimate == pytest.approx(plain.estimate - 4.0)
    assert plain.estimate > 96.0  # the first is better by a point with either seed


@pytest.mark.parametrize("spread_of_truths", [0.0, 0.3, 2.0])
def test_the_estimate_is_right_in_the_mean_where_plain_means_promise_too_much(spread_of_truths):
    rng = random.Random(5)
    reported, plain = [], []
    for _ in range(3000):
        truths = [95.0 + rng.gauss(0, spread_of_truths) for _ in range(3)]
        entries = [confirmation(number, *(truth + rng.gauss(0, 0.6) for _ in range(3)))
                   for number, truth in enumerate(truths)]  # fmt: skip
        winner = choose_winner(entries, "maximize")
        reported.append(winner.estimate - truths[winner.number])
        plain.append(fmean(entries[winner.number].values) - truths[winner.number])
    assert abs(fmean(reported)) < 0.15
    if spread_of_truths < 1:
        assert fmean(plain) > 0.2
