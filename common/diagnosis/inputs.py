"""Finding the run that a user means: a run folder, or a metrics.json and the results report of the same run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.comparison.runs import Run
from common.diagnosis.evidence import RunEvidence
from common.exits import InputFileError, ToolError
from common.metrics_file import read_metrics

if TYPE_CHECKING:
    from common.config import Config

MAX_REPORT_BYTES = 10_000_000
_STARTED = re.compile(r"^\*\*Date:\*\* (\S+)", re.MULTILINE)
_ROW = r"^\| {} +\| (?:sha256 )?([0-9a-f]+)…? +\|"
_CONFIGURATION = re.compile(r"^## Configuration\n+(`{3,})yaml\n(?P<yaml>.*?)\n\1", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class ResultsReport:
    """What ``baseline_results.md`` says about which run it is of; and the config that it holds."""

    path: Path
    started_at: str
    seed: str
    config_sha256_start: str
    fingerprint_start: str
    config_text: str

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """How the run that it is of differs from the one with these ``run`` values of metrics.json."""
        dataset = facts.get("dataset")
        fingerprint = dataset.get("fingerprint") if isinstance(dataset, Mapping) else None
        pairs = (
            ("started at", self.started_at, str(facts.get("started_at"))),
            ("seed", self.seed, str(facts.get("seed"))),
            ("configuration", self.config_sha256_start, _start(facts.get("config_sha256"), self.config_sha256_start)),
            ("data", self.fingerprint_start, _start(fingerprint, self.fingerprint_start)),
        )
        return [f"{what} {here} against {there}" for what, here, there in pairs if here != there]


def read_evidence(metrics: str | Path, report: str | Path | None = None) -> RunEvidence:
    """The run that ``metrics`` (a metrics.json or a run folder) is of.

    Args:
        report: the results report of the same run. What does not lie beside the metrics is looked for beside it, and
            the config, in the end, in it.
    Raises:
        InputFileError: a file is missing or is not what it should be, or the two are of different runs.
    """
    metrics = Path(metrics)
    path = metrics / "metrics.json" if metrics.is_dir() else metrics
    run = Run(path, read_metrics(path))
    if report is None:
        return RunEvidence(run, run.config)
    results = read_results_report(Path(report))
    differences = results.differences(run.facts)
    if differences:
        raise InputFileError(
            f"is of another run than {path}: {'; '.join(differences)}", path=results.path, field="--baseline",
            hint="give the report and the metrics of one run, or the run's folder with --run",
        )  # fmt: skip
    if not run.folder.config.is_file():
        run = Run(results.path.resolve().parent / path.name, run.document)
    return RunEvidence(run, run.config or _config_in(results))


def read_results_report(path: Path) -> ResultsReport:
    """Raises InputFileError where the file is missing or is not a results report."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_REPORT_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise InputFileError("there is no such file", path=path, field="--baseline",
                             hint="train a baseline first, or leave the flag out") from None  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"cannot be read ({error})", path=path, field="--baseline") from error
    rows = [re.search(_ROW.format(name), text, re.MULTILINE) for name in ("Seed", "Configuration", "Data fingerprint")]
    started, configuration = _STARTED.search(text), _CONFIGURATION.search(text)
    if started is None or configuration is None or None in rows:
        raise InputFileError(
            "is not the results report of a training", path=path, field="--baseline",
            hint="give the baseline_results.md that training_orchestrator.py wrote",
        )  # fmt: skip
    seed, sha256, fingerprint = (row[1] for row in rows if row is not None)
    return ResultsReport(path, started[1], seed, sha256, fingerprint, configuration["yaml"])


def _config_in(results: ResultsReport) -> Config | None:
    from common.config import config_from_mapping, read_yaml_text

    try:
        return config_from_mapping(read_yaml_text(results.config_text, str(results.path)).value, results.path)
    except ToolError:
        return None


def _start(value: Any, like: str) -> str:
    return str(value)[: len(like)]
