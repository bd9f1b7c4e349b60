from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.search.configurations import Configurations, in_order, is_active, key_of
from common.search.levels import at_fraction, draw, index_of, is_ordered, level, num_levels, sorted_levels
from common.search_results.records import SpaceEntry

LISTS = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def spaces(draw_from) -> list[SpaceEntry]:
    """Up to five entries, each of which may depend on earlier ones."""
    entries: list[SpaceEntry] = []
    for number in range(draw_from(st.integers(1, 5))):
        when = {}
        for parent in draw_from(st.lists(st.sampled_from(entries), unique_by=lambda e: e.path, max_size=2)) \
                if entries else []:  # fmt: skip
            when[parent.path] = tuple(draw_from(st.lists(st.sampled_from(parent.choices), min_size=1, unique=True)))
        entries.append(SpaceEntry(f"section.field{number}", choices=draw_from(LISTS), when=when))
    return draw_from(st.permutations(entries))


def by_hand(entries: list[SpaceEntry]) -> set[str]:
    """All configurations, by trying every value of every entry."""
    found = [{}]
    for entry in in_order(entries):
        found = [{**params, entry.path: value} if is_active(entry, params) else params
                 for params in found for value in entry.choices]  # fmt: skip
    return {key_of(params) for params in found}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(spaces())
def test_every_configuration_has_one_number(entries):
    space = Configurations(entries)
    keys = [key_of(params) for params in space]
    assert len(keys) == space.size == len(set(keys))
    assert set(keys) == by_hand(entries)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(spaces(), st.integers(0, 1000))
def test_what_is_drawn_is_a_configuration(entries, seed):
    space = Configurations(entries)
    params = space.draw(random.Random(seed))
    assert key_of(params) in by_hand(entries)
    assert list(params) == [entry.path for entry in entries if entry.path in params]
    everything = {entry.path: entry.choices[0] for entry in entries}
    assert key_of(space.active(everything)) in by_hand(entries)


def test_a_continuous_range_makes_a_space_infinite_even_where_it_is_rarely_there():
    entries = [SpaceEntry("a.x", choices=(1, 2)), SpaceEntry("a.y", low=0.0, high=1.0, when={"a.x": (2,)})]
    assert Configurations(entries).size is None
    assert Configurations(entries[:1]).size == 2


def test_what_depends_on_itself_has_no_order():
    circle = [SpaceEntry("a.x", choices=(1,), when={"a.y": (1,)}), SpaceEntry("a.y", choices=(1,), when={"a.x": (1,)})]
    with pytest.raises(ValueError, match="depends on itself"):
        in_order(circle)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (SpaceEntry("a.x", choices=("b", "a")), ["b", "a"]),
        (SpaceEntry("a.x", low=0.0, high=0.5, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (SpaceEntry("a.x", low=1e-5, high=5e-5, step=1e-5), [1e-5, 2e-5, 3e-5, 4e-5, 5e-5]),
        (SpaceEntry("a.x", low=2, high=5), [2, 3, 4, 5]),
        (SpaceEntry("a.x", low=16, high=64, step=16), [16, 32, 48, 64]),
    ],
)
def test_the_values_of_an_entry_to_the_last_digit(entry, values):
    assert [level(entry, index) for index in range(num_levels(entry))] == values
    assert [index_of(entry, value) for value in values] == list(range(len(values)))
    assert {draw(entry, random.Random(seed)) for seed in range(200)} == set(values)


def test_numbers_are_ordered_and_names_are_not():
    assert is_ordered(SpaceEntry("a.x", choices=(3, 0.5))) and is_ordered(SpaceEntry("a.x", low=1, high=2))
    assert not is_ordered(SpaceEntry("a.x", choices=(True, False)))
    assert not is_ordered(SpaceEntry("a.x", choices=("a", "b")))
    assert sorted_levels(SpaceEntry("a.x", choices=(64, 16, 32))) == [16, 32, 64]


@pytest.mark.parametrize(("low", "high"), [(1e-4, 1.0), (10, 9990)])
def test_in_the_logarithm_small_and_large_are_as_likely(low, high):
    entry = SpaceEntry("a.x", low=low, high=high, log=True)
    rng = random.Random(5)
    drawn = [draw(entry, rng) for _ in range(2000)]
    assert 0.46 < sum(value < (low * high) ** 0.5 for value in drawn) / len(drawn) < 0.54
    assert all(low <= value <= high and type(value) is type(low) for value in drawn)
    assert [at_fraction(entry, fraction) for fraction in (0.0, 0.9999999)] == pytest.approx([low, high], rel=0.01)
