from __future__ import annotations

import pytest

from common.late import Late, LateMapping, settled


def counted(value):
    """Work that gives ``value``, and how often it was done."""
    calls = []

    def work():
        calls.append(1)
        return value

    return work, calls


def test_a_late_value_is_worked_out_once_when_it_is_asked_for():
    work, calls = counted(None)
    late = Late(work)
    assert calls == []
    assert late() is None and late() is None and calls == [1]


def test_a_failure_is_not_taken_for_a_value():
    attempts = [ValueError("first"), "second"]

    def work():
        attempt = attempts.pop(0)
        if isinstance(attempt, Exception):
            raise attempt
        return attempt

    late = Late(work)
    with pytest.raises(ValueError, match="first"):
        late()
    assert late() == "second" == late()


def test_only_late_values_at_the_top_are_settled():
    work, calls = counted({"a": 1})
    assert settled({"now": [1], "late": Late(work)}) == {"now": [1], "late": {"a": 1}}
    assert calls == [1]


def test_a_late_mapping_is_like_the_dict_it_becomes():
    work, calls = counted({"a": 1, "b": {"c": [2.5]}})
    late = LateMapping(work)
    assert calls == []
    assert late["a"] == 1 and list(late) == ["a", "b"] and len(late) == 2 and "c" not in late
    assert late == {"a": 1, "b": {"c": [2.5]}} and dict(late) == late
    assert calls == [1]
