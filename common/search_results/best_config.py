"""``best_config.yaml``: the base config with the winner's hyperparameters, each difference with what it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from common.config import Config, LoadedConfig, config_differences, dump_config
from common.config.overrides import merged
from common.config.schema_errors import describe, validate
from common.exits import InputFileError
from common.guides.changes import nested
from common.search_results.records import StudyRecord
from common.search_results.wording import METHODS, metric_name, trial_of


def config_with(base: Config, params: Mapping[str, Any]) -> Config:
    """``base`` with the values of ``params``, by full path.

    Raises:
        InputFileError: together they are no valid config.
    """
    # Only what the base says explicitly, so that a default is still a default in the new one.
    mapping = base.model_dump(mode="json", exclude_unset=True)
    for path, value in params.items():
        mapping = merged(mapping, nested(path, value))
    result = validate(mapping)
    if isinstance(result, Config):
        return result
    raise InputFileError(f"the hyperparameters make the config invalid: {describe(result[0])}")


def best_config_text(study: StudyRecord, base: LoadedConfig) -> str:
    """The winner's config as YAML: ``learning_rate: 0.003  # base: 0.001``. ``load_config`` gives an equal config.

    Raises:
        InputFileError: base and hyperparameters together are no valid config.
        ValueError: the study has no winner.
    """
    if study.winner is None:
        raise ValueError("the study has no winner")
    best = config_with(base.config, trial_of(study, study.winner).params)
    differences = config_differences(base.config, best)
    header = [
        f"The best configuration of the hyperparameter search `{study.name}`: trial {study.winner}, "
        f"{METHODS[study.method]} by {metric_name(study.metric)}.",
        f"Base: {study.base_config}; what differs from it is marked. Every field is written out.",
    ]
    if not differences:
        header.append("Nothing differs: the base has the best values already.")
    return dump_config(best, header, {key: f"base: {json.dumps(old)}" for key, old, _ in differences})
