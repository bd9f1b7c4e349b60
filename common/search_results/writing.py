"""Everything that a search leaves in its folder: tables, the best config, the report and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.atomic import write_text
from common.config import LoadedConfig, config_differences
from common.search_results.best_config import best_config_text, config_with
from common.search_results.pictures import Pictures, draw_pictures
from common.search_results.records import StudyRecord
from common.search_results.report import report_text
from common.search_results.trial_files import trials_csv, trials_json, writable
from common.search_results.verdict import outcome_sentence
from common.search_results.wording import param_paths, short_names, shown_value, trial_of


def write_results(
    folder: Path,
    study: StudyRecord,
    base: LoadedConfig,
    draw: Callable[[Path, StudyRecord], Pictures] = draw_pictures,
) -> list[Path]:
    """Write everything anew into ``folder``, each file in one step; the same study gives the same bytes.

    best_config.yaml needs a winner; without one it is left out, and one of before is removed.

    Returns:
        The files, the report first.
    Raises:
        InputFileError: the base and the winner's hyperparameters together are no valid config.
        OSError: a file cannot be written.
    """
    study = replace(study, trials=sorted(study.trials, key=lambda trial: trial.number))
    write_trials(folder, study)
    report, best = folder / "search_results.md", folder / "best_config.yaml"
    if study.winner is None:
        best.unlink(missing_ok=True)
    else:
        write_text(best, best_config_text(study, base))
    pictures = draw(folder, study)
    write_text(report, writable(report_text(study, base, folder, pictures)))
    names = ["trials.csv", "trials.json", *pictures.names]
    return [report, *([best] if study.winner is not None else []), *(folder / name for name in names)]


def write_trials(folder: Path, study: StudyRecord) -> None:
    """Write trials.csv and trials.json alone, which is cheap enough for after every trial.

    Raises:
        OSError: a file cannot be written.
    """
    # They can be made again from the study. Waiting for the disk would be waiting for all that a training has written.
    write_text(folder / "trials.csv", trials_csv(study), flush=False)
    write_text(folder / "trials.json", trials_json(study), flush=False)


def winner_lines(study: StudyRecord, base: LoadedConfig | None = None) -> list[str]:
    """The outcome for the console: the winner with the score to expect, then what it sets, a line each.

    Args:
        base: where it is given, each line says what the base has, and values that are the base's are left out.
    """
    lines = [outcome_sentence(study)]
    if study.winner is None:
        return lines
    params = trial_of(study, study.winner).params
    if base is None:
        names = short_names(param_paths(study))
        return [*lines, *(f"  {names[path]}: {shown_value(value)}" for path, value in params.items())]
    differences = config_differences(base.config, config_with(base.config, params))
    if not differences:
        return [*lines, "  Nothing differs from the base config."]
    return [*lines, *(f"  {key}: {shown_value(new)} (base: {shown_value(old)})" for key, old, new in differences)]
