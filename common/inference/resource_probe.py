"""Runs in a process of its own: ``python -m common.inference.resource_probe JSON``. Prints one JSON object.

What a model needs is seen best where nothing else has happened yet: no test data, no other model, no warm cache of the
memory allocator.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.exits import ToolError
from common.inference.model_files import model_format

MAX_CALLS = 20
CALLS_LIMIT_S = 5.0
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def probe(path: Path, device: str, num_threads: int, inputs: np.ndarray) -> dict[str, Any]:
    """Import the runtime, open the model, call it; see ``resources.Resources`` for what is returned."""
    kind = model_format(path)
    imported, import_s = _timed(lambda: _import_runtime(kind))
    gpu = _gpu_watch(device)
    baseline_bytes = _status_bytes("VmRSS")
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
    engine, load_s = _timed(lambda: imported.open_model(path, device, num_threads))
    _, first_call_s = _timed(lambda: engine(inputs))
    _call_again(engine, inputs)
    return {
        "import_s": import_s,
        "load_s": load_s,
        "first_call_s": first_call_s,
        "baseline_bytes": baseline_bytes,
        "peak_bytes": _status_bytes("VmHWM"),
        "gpu": vars(gpu.read()) if gpu else None,
        "nodes_by_provider": nodes_by_provider(path, device, num_threads, inputs) if kind == "onnx" and gpu else None,
    }


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    begin_s = time.perf_counter()
    result = action()
    return result, time.perf_counter() - begin_s


def _import_runtime(kind: str) -> Any:
    """The module to open a model with, once all that this kind of model needs is imported."""
    names = ("onnxruntime", "common.inference.onnx_engine") if kind == "onnx" else ("common.inference.torch_engines",)
    for name in names:
        importlib.import_module(name)
    return importlib.import_module("common.inference.engines")


def _gpu_watch(device: str) -> Any:
    if not device.startswith("cuda"):
        return None
    return importlib.import_module("common.inference.gpu_memory").GpuMemoryWatch(device)


def _call_again(engine: Callable, inputs: np.ndarray) -> None:
    end_s = time.perf_counter() + CALLS_LIMIT_S
    for _ in range(MAX_CALLS):
        engine(inputs)
        if time.perf_counter() > end_s:
            return


def nodes_by_provider(path: Path, device: str, num_threads: int, inputs: np.ndarray) -> dict[str, int]:
    """How many nodes of the optimised graph each of ONNX Runtime's providers executes in one call."""
    from common.inference.onnx_engine import new_session

    with tempfile.TemporaryDirectory() as folder:
        index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        session = new_session(path, num_threads, index, profile_prefix=str(Path(folder) / "profile"))
        session.run(None, {session.get_inputs()[0].name: inputs})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    executed = [event for event in events if event.get("cat") == "Node" and event.get("args", {}).get("provider")]
    return dict(Counter(event["args"]["provider"] for event in executed))


def _status_bytes(field: str) -> int | None:
    """A size from /proc/self/status; None on other systems."""
    try:
        lines = _STATUS.read_text().split("\n")
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None


def main(argument: str) -> int:
    request = json.loads(argument)
    # Numbers like those that normalised data has; which they are changes nothing here.
    shape = (request["batch_size"], *request["input_shape"])
    inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    try:
        report = probe(Path(request["path"]), request["device"], request["num_threads"], inputs)
    except ToolError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
