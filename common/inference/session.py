"""One run of the tool: models opened, data read, every batch size measured, requirements checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.console import Console
from common.inference.as_json import document
from common.inference.comparison import Comparison, compare
from common.inference.engines import Engine, open_model
from common.inference.gates import Gate, check_gates
from common.inference.measurement import Measurement, Settings, check_schedule, measure
from common.inference.requests import RequestSource, load_requests


@dataclass(frozen=True)
class SessionRequest:
    """What the user asked for; ``num_threads`` None for as many as this process may use."""

    model: Path
    test_data: Path
    compare: Path | None = None
    batch_sizes: tuple[int, ...] = (1,)
    device: str = "auto"
    num_threads: int | None = None
    duration_s: float = 5.0
    rate_per_s: float | None = None
    max_latency_ms: float | None = None
    min_accuracy_pct: float | None = None


@dataclass(eq=False)
class SessionResult:
    """One measurement of the model per batch size, and with a second model one comparison per batch size."""

    measurements: list[Measurement] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)

    def document(self, test_data: Path) -> dict[str, Any]:
        """All of it for programs."""
        return document(self.measurements, self.comparisons, self.gates, test_data)

    def all_measurements(self) -> list[Measurement]:
        """Those of the model, then those of the one it was compared with."""
        return self.measurements + [comparison.other for comparison in self.comparisons]

    def names(self) -> list[str]:
        """One for each of ``all_measurements``."""
        own = [f"batch {measurement.batch_size}" for measurement in self.measurements]
        return own + [f"other batch {comparison.other.batch_size}" for comparison in self.comparisons]


def run_session(request: SessionRequest, console: Console) -> SessionResult:
    """Measure everything; progress, notices and problems of the data go to ``console``.

    Raises:
        ToolError: see ``open_model``, ``load_requests`` and ``measure``.
    """
    settings = Settings(request.duration_s, request.rate_per_s)
    if settings.rate_per_s is not None:
        check_schedule(settings)
    paths = [request.model] if request.compare is None else [request.model, request.compare]
    engines = [_open(path, request, console) for path in paths]
    sources = [_sources(engine, request, console if number == 0 else None) for number, engine in enumerate(engines)]
    result = SessionResult()
    for number, batch_size in enumerate(request.batch_sizes):
        at_this_size = [of_engine[number] for of_engine in sources]
        total = sum(source.num_samples for source in at_this_size)
        with console.progress(total, f"Batch size {batch_size}") as bar:
            _measure_into(result, engines, at_this_size, settings, bar.advance)
        result.gates += check_gates(
            result.measurements[-1],
            max_latency_ms=request.max_latency_ms,
            min_accuracy_pct=request.min_accuracy_pct,
        )
    return result


def _measure_into(
    result: SessionResult, engines: list[Engine], sources: list[RequestSource], settings, advance
) -> None:
    if len(engines) == 1:
        result.measurements.append(measure(engines[0], sources[0], settings, advance))
        return
    comparison = compare((engines[0], engines[1]), (sources[0], sources[1]), settings, advance)
    result.measurements.append(comparison.first)
    result.comparisons.append(comparison)


def _open(path: Path, request: SessionRequest, console: Console) -> Engine:
    engine = open_model(path, request.device, request.num_threads or _usable_cpus())
    for notice in engine.notices:
        console.warning(notice)
    return engine


def _sources(engine: Engine, request: SessionRequest, console: Console | None) -> list[RequestSource]:
    dataset = load_requests(request.test_data, engine.metadata)
    if console is not None:
        for problem in dataset.problems:
            console.warning(problem.message)
        for notice in dataset.notices:
            console.info(notice)
    return [RequestSource(dataset, request.test_data, batch_size) for batch_size in request.batch_sizes]


def _usable_cpus() -> int:
    from common.device import available_cpus

    return available_cpus()
