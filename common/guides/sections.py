"""What a guide says about itself in its front matter: the fields, and what each may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from common.config.field_types import Line, Section
from common.guides.changes import Change

ID_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Level = Literal["high", "medium", "low"]
Severity = Literal["critical", "high", "medium", "low"]


class Recommendation(Section):
    """One remedy.

    Args:
        id: stable name, unique in its guide.
        title: what to do, in a few words.
        why: what it does about the issue.
        config: the change of each field concerned, by dotted key; empty where a person must act.
        impact: how much it usually helps.
        effort: time and compute that it costs.
        risk: how easily it makes something else worse.
        expected_gain: what to expect, with the source.
    """

    id: Id
    title: Line
    why: Line
    config: dict[str, Change] = Field(default_factory=dict)
    impact: Level
    effort: Level
    risk: Level
    expected_gain: Line


class FrontMatter(Section):
    """The fields of a guide that tools act on.

    Args:
        id: the file's name without ``.md``.
        title: what the issue is called.
        trigger: when the guide applies, in words.
        severity: how bad it is to go on without acting.
        symptoms: what is seen, most telling first.
        recommendations: in the order in which to try them.
    """

    id: Id
    title: Line
    trigger: Line
    severity: Severity
    symptoms: list[Line] = Field(min_length=1)
    recommendations: list[Recommendation] = Field(min_length=1)


class Guide(FrontMatter):
    """A guide that was read and checked.

    Args:
        path: its file.
        body: the prose below the front matter, Markdown.
    """

    path: Path
    body: str

    def recommendation(self, recommendation_id: str) -> Recommendation:
        """Raises KeyError where there is none of that name."""
        for recommendation in self.recommendations:
            if recommendation.id == recommendation_id:
                return recommendation
        raise KeyError(recommendation_id)
