"""Recommendations applied to a config, and put in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from common.config import Config, config_differences, config_to_mapping
from common.config.overrides import merged
from common.config.schema_errors import describe, validate
from common.exits import InputFileError
from common.guides.changes import changed_value, nested, value_at
from common.guides.sections import Recommendation

_HIGHEST_FIRST = {"high": 0, "medium": 1, "low": 2}


class AppliedChange(NamedTuple):
    """One field that a recommendation changed; lists are given as a whole."""

    key: str
    old: Any
    new: Any
    recommendation_id: str


def apply_changes(config: Config, recommendations: Iterable[Recommendation]) -> tuple[Config, list[AppliedChange]]:
    """The config with each recommendation carried out in turn, and what that changed.

    A number that would leave the field's range stops at its end; what changes nothing is left out.

    Raises:
        InputFileError: a recommendation contradicts something else in the config.
    """
    applied = []
    for recommendation in recommendations:
        changed = _carried_out(config, recommendation)
        differences = config_differences(config, changed)
        applied += [AppliedChange(key, old, new, recommendation.id) for key, old, new in differences]
        config = changed
    return config, applied


def rank(recommendations: Iterable[Recommendation]) -> list[Recommendation]:
    """Highest impact first, then least effort, then least risk; equals stay in their order."""
    return sorted(recommendations, key=lambda r: (
        _HIGHEST_FIRST[r.impact], -_HIGHEST_FIRST[r.effort], -_HIGHEST_FIRST[r.risk],
    ))  # fmt: skip


def _carried_out(config: Config, recommendation: Recommendation) -> Config:
    mapping = config_to_mapping(config)
    values = {key: changed_value(change, key, mapping) for key, change in recommendation.config.items()}
    # Only what the config says explicitly, so that a default is still a default in the new one.
    explicit = config.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        if value != value_at(mapping, key):
            explicit = merged(explicit, nested(key, value))
    result = validate(explicit)
    if isinstance(result, Config):
        return result
    raise InputFileError(
        f"the recommendation `{recommendation.id}` makes the config invalid: {describe(result[0])}",
        hint="correct the recommendation in its guide",
    )
