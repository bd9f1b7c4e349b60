"""``search_results.md``: what a search found and how far to trust it, for people."""

from __future__ import annotations

from pathlib import Path

from common import markdown
from common.config import LoadedConfig
from common.search_results.records import StudyRecord
from common.search_results.verdict import outcome_sentence, search_maximum_sentence


def report_text(study: StudyRecord, base: LoadedConfig, folder: Path) -> str:
    """The whole report as Markdown. Pictures are named relative to ``folder``, where it lies too."""
    sentences = [outcome_sentence(study), search_maximum_sentence(study)]
    return markdown.document(f"Hyperparameter search: {study.name}", [("", "\n\n".join(filter(None, sentences)))])
