"""``search_results.md``: what a search found and how far to trust it, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

from common import markdown
from common.config import LoadedConfig, config_differences
from common.console import format_duration
from common.environment import differing_fields
from common.search_results.advice import next_steps, repeat_command
from common.search_results.best_config import config_with
from common.search_results.importance import FEWEST_TRIALS, METHOD
from common.search_results.pictures import HISTORY, HYPERPARAMETERS, IMPORTANCE, PAIR, Pictures
from common.search_results.records import Confirmation, SpaceEntry, StudyRecord, TrialRecord
from common.search_results.verdict import confirmed_winner, outcome_sentence, search_maximum_sentence
from common.search_results.winner import all_values
from common.search_results.wording import (
    METHODS,
    STATES,
    metric_name,
    param_paths,
    ranked_trials,
    short_names,
    shown_score,
    shown_spread,
    shown_value,
    trial_of,
)

MOST_TRIALS = 10
MOST_OTHERS = 30
_ENDS = {
    "finished": "the search is complete",
    "exhausted": "every configuration of the space was tried",
    "timeout": "the time was up",
    "interrupted": "it was interrupted",
    "running": "it is still running",
}


def report_text(study: StudyRecord, base: LoadedConfig, folder: Path, pictures: Pictures) -> str:
    """The whole report as Markdown. Pictures are named relative to ``folder``, where it lies too."""
    ways = [
        ("", _verdict(study)),
        ("What to do next", next_steps(study, folder)),
        ("The winner", _winner(study, base)),
        ("Confirmation", _confirmation(study)),
        ("Trials", _trials(study)),
        ("Without a score", _others(study)),
        ("What mattered", _what_mattered(study, pictures)),
        ("Search space", _space(study)),
        ("Settings", _settings(study)),
        ("Repeating it", _repeating(study)),
    ]
    return markdown.document(f"Hyperparameter search: {study.name}", [way for way in ways if way[1]])


def _verdict(study: StudyRecord) -> str:
    sentences = [f"**{outcome_sentence(study)}**", search_maximum_sentence(study), _progress_sentence(study)]
    return "\n\n".join(filter(None, sentences))


def _progress_sentence(study: StudyRecord) -> str:
    counts = {state: sum(trial.state == state for trial in study.trials) for state in STATES}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
    done = sum(trial.state not in ("running", "waiting") for trial in study.trials)
    text = f"{done} of {study.n_trials} trials are done ({told}); {_ENDS[study.end]}."
    if study.method == "grid_search" and study.size is not None:
        part = "the whole grid" if done >= study.size else "a part of the grid, in random order"
        text += f" That is {done} of {study.size} grid points: {part}."
    return text


def _winner(study: StudyRecord, base: LoadedConfig) -> str:
    if study.winner is None:
        return ""
    trial = trial_of(study, study.winner)
    differences = config_differences(base.config, config_with(base.config, trial.params))
    changed = {key for key, _, _ in differences}
    rows = [(key, shown_value(old), shown_value(new)) for key, old, new in differences]
    kept = [f"`{path}` {shown_value(value)}" for path, value in trial.params.items() if path not in changed]
    parts = [markdown.table(["Field", "Base", "Winner"], rows) if rows else "Nothing differs from the base config."]
    if kept:
        parts.append(f"As in the base: {', '.join(kept)}.")
    parts.append("The whole of it is [best_config.yaml](best_config.yaml).")
    return "\n\n".join(parts)


def _confirmation(study: StudyRecord) -> str:
    if not study.confirmations:
        if study.winner is None:
            return ""
        return (
            "The winner was not trained again with fresh seeds. Its score is the maximum of the search: the best of "
            "many scores is high by luck too, and another seed will most likely give less."
        )
    seeds = study.confirmations[0].seeds
    header = ["Trial", "In the search", *(f"Seed {seed}" for seed in seeds[1:]), "Mean of all", "Spread"]
    rows = [_confirmation_row(study, entry) for entry in study.confirmations]
    return f"{markdown.table(header, rows)}\n\n{_how_confirmed(study)}"


def _confirmation_row(study: StudyRecord, entry: Confirmation) -> list[str]:
    scores = [shown_score(value, study.metric) if value is not None else "diverged" for value in entry.values]
    values = all_values(entry)
    mean = shown_score(fmean(values), study.metric) if values else "n/a"
    spread = shown_spread(stdev(values), study.metric) if len(values) > 1 else "n/a"
    mark = "✓ " if entry.number == study.winner else ""
    return [f"{mark}{entry.number}", *scores, mean, spread]


def _how_confirmed(study: StudyRecord) -> str:
    text = (
        "The winner (✓) has the best mean over all its seeds; spread is the standard deviation over them. "
        "A configuration that diverges comes after those that do not."
    )
    if confirmed_winner(study) is None:
        return text
    return (
        f"{text} The score to expect is the winner's mean over the fresh seeds alone, drawn towards that of the "
        "others by as much as the differences between them are chance: who comes first among several is lucky too."
    )


def _trials(study: StudyRecord) -> str:
    ranked = ranked_trials(study)
    if not ranked:
        return "No trial has a score."
    paths = param_paths(study)
    names = short_names(paths)
    header = ["Rank", "Trial", metric_name(study.metric).capitalize(), *(names[path] for path in paths), "Best epoch",
              "Time"]  # fmt: skip
    rows = [[rank, trial.number, shown_score(trial.value, study.metric), *_params(trial, paths),
             _shown_epoch(trial.measures), format_duration(trial.duration_s)]
            for rank, trial in enumerate(ranked[:MOST_TRIALS], 1)]  # fmt: skip
    more = f"the best {len(rows)} of {len(ranked)}; " if len(ranked) > len(rows) else ""
    parts = [
        markdown.table(header, rows),
        f"One seed each, so the order of close ones is chance ({more}all in [trials.csv](trials.csv) and "
        "[trials.json](trials.json)).",
        f"![Score against each hyperparameter]({HYPERPARAMETERS})",
        f"![Best score so far]({HISTORY})",
    ]
    return "\n\n".join(parts)


def _params(trial: TrialRecord, paths: list[str]) -> list[str]:
    return [shown_value(trial.params[path]) if path in trial.params else "-" for path in paths]


def _shown_epoch(measures: Mapping[str, float]) -> str:
    epoch, epochs = measures.get("best_epoch"), measures.get("epochs")
    if epoch is None:
        return "n/a"
    return f"{epoch:.0f}" if epochs is None else f"{epoch:.0f} of {epochs:.0f}"


def _others(study: StudyRecord) -> str:
    """Trials that diverged, were given up, failed, or are not done, each with why."""
    ranked = {trial.number for trial in ranked_trials(study)}
    others = [trial for trial in sorted(study.trials, key=lambda trial: trial.number) if trial.number not in ranked]
    if not others:
        return ""
    paths = param_paths(study)
    names = short_names(paths)
    header = ["Trial", "State", "Why", *(names[path] for path in paths), "Attempts"]
    rows = [[trial.number, trial.state, trial.message or "-", *_params(trial, paths), trial.attempts]
            for trial in others[:MOST_OTHERS]]  # fmt: skip
    more = len(others) - len(rows)
    table = markdown.table(header, rows)
    return f"{table}\n\n{more} more are in [trials.csv](trials.csv)." if more else table


def _what_mattered(study: StudyRecord, pictures: Pictures) -> str:
    names = short_names(param_paths(study))
    if pictures.importances is None:
        text = (
            f"Too few trials to tell: it takes {FEWEST_TRIALS} with different outcomes, and more to be sure."
            if study.trials else ""
        )  # fmt: skip
    else:
        clear = [names[entry.path] for entry in pictures.importances if entry.is_clear]
        text = (
            f"More than chance: {', '.join(clear)}. Of the others these trials do not tell."
            if clear else "Nothing mattered by more than chance would have it; with more trials it may show."
        )  # fmt: skip
        text += f" Method: {METHOD}."
    images = [f"![{what}]({name})" for name, what in ((IMPORTANCE, "Importance of each hyperparameter"),
              (PAIR, "Two hyperparameters and the score")) if name in pictures.names]  # fmt: skip
    return "\n\n".join(filter(None, [text, *images]))


def _space(study: StudyRecord) -> str:
    rows = [(entry.path, _shown_values(entry), _shown_condition(entry)) for entry in study.space]
    size = "a continuous range, so no end of configurations" if study.size is None else f"{study.size:,} configurations"
    return f"{markdown.table(['Hyperparameter', 'Values', 'Only where'], rows)}\n\nFrom `{study.search_space}`: {size}."


def _shown_values(entry: SpaceEntry) -> str:
    if entry.choices is not None:
        return ", ".join(shown_value(value) for value in entry.choices)
    step = "" if entry.step is None else f" in steps of {shown_value(entry.step)}"
    return f"{shown_value(entry.low)} to {shown_value(entry.high)}{step}{', logarithmic' if entry.log else ''}"


def _shown_condition(entry: SpaceEntry) -> str:
    conditions = [f"{path} is {' or '.join(map(shown_value, values))}" for path, values in entry.when.items()]
    return ", ".join(conditions) or "-"


def _settings(study: StudyRecord) -> str:
    trained_s = sum(trial.duration_s or 0.0 for trial in study.trials)
    rows = [
        ("Method", f"{METHODS[study.method]}: {study.sampler}"),
        ("Metric", f"{metric_name(study.metric)}, {study.direction}d, at the best epoch of each trial"),
        ("Trials asked for", study.n_trials),
        ("Epochs of each", "as in the base config" if study.epochs is None else study.epochs),
        ("Seed of the search", study.seed),
        ("Seed of the trials", ", ".join(sorted({str(trial.seed) for trial in study.trials})) or "n/a"),
        ("Results that a trial knew", _known_results(study)),
        ("Base config", study.base_config),
        *([("Machines and software", _differing_machines(study))] if len(study.machines) > 1 else []),
        ("Time of the search", format_duration(study.elapsed_s)),
        ("Training time of the trials, added up", format_duration(trained_s)),
    ]
    return markdown.table(["Setting", "Value"], rows)


def _differing_machines(study: StudyRecord) -> str:
    """In what the machines, and the libraries on them, differ on which the study was worked on."""
    differing = [f"{name} {' or '.join(dict.fromkeys(values))}"
                 for name, values in differing_fields(study.machines).items()]  # fmt: skip
    return f"{'; '.join(differing)}: a trial's score may depend on where it was trained"


def _known_results(study: StudyRecord) -> str:
    if study.method != "bayesian":
        return "none: it was drawn without them"
    if study.lag == 0:
        return "those of all trials before it"
    return f"those of all trials before it, without the last {study.lag}, so that several run at the same time"


def _repeating(study: StudyRecord) -> str:
    command = repeat_command(study)
    if command is None:
        return ""
    return (
        f"{markdown.code_block(command, 'bash')}\n\nThe same command goes on with this study, or finds it finished; "
        "with another `--output` it makes it anew. The same seed gives the same trials with the same results on the "
        "same kind of machine, whatever `--jobs` is and however often it was interrupted."
    )
