"""What a search found, in one or two sentences that promise no more than they may."""

from __future__ import annotations

from common.search_results.records import Confirmation, StudyRecord
from common.search_results.winner import Winner, all_values, choose_winner
from common.search_results.wording import metric_name, ranked_trials, shown_score, shown_spread, trial_of


def confirmed_winner(study: StudyRecord) -> Winner | None:
    """The study's winner with the score to expect, where it was trained with fresh seeds."""
    winner = choose_winner(study.confirmations, study.direction)
    return winner if winner is not None and winner.number == study.winner else None


def confirmation_of(study: StudyRecord, number: int) -> Confirmation | None:
    """The confirmation of a trial, None where it was not confirmed."""
    return next((entry for entry in study.confirmations if entry.number == number), None)


def outcome_sentence(study: StudyRecord) -> str:
    """The winner and its score, or why there is none."""
    if study.winner is None:
        return f"No winner: {_why_none(study)}."
    confirmed = confirmed_winner(study)
    name = metric_name(study.metric)
    if confirmed is None:
        score = shown_score(trial_of(study, study.winner).value, study.metric)
        return (
            f"Winner: trial {study.winner}, {name} {score}. This is the best score that the search saw, so it is "
            "optimistic: expect less with another seed."
        )
    number = len(all_values(confirmation_of(study, study.winner)))
    spread = "" if confirmed.spread is None else f" ± {shown_spread(confirmed.spread, study.metric)}"
    return (
        f"Winner: trial {study.winner}, expected {name} {shown_score(confirmed.estimate, study.metric)}{spread} "
        f"({_counted(number, 'seed')})."
    )


def search_maximum_sentence(study: StudyRecord) -> str | None:
    """What the best score of the search itself was, and why it is not the result; None where nothing was confirmed."""
    ranked, confirmed = ranked_trials(study), confirmed_winner(study)
    if not ranked or confirmed is None:
        return None
    best = ranked[0]
    whose = "the same trial" if best.number == study.winner else f"trial {best.number}"
    return (
        f"The search's own best score was {shown_score(best.value, study.metric)} ({whose}); it is the luckiest of "
        f"{_counted(len(ranked), 'trial')} and so optimistic."
    )


def _why_none(study: StudyRecord) -> str:
    if not study.trials:
        return "no trial was begun"
    return "no trial was completed with a score"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
