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


def probe(path: str, device: str, num_threads: int, inputs: np.ndarray) -> dict[str, Any]:
    """Import the runtime, open the model, call it; see ``resources.Resources`` for what is returned."""
    path_of_model = Path(path)
    kind = model_format(path_of_model)
    begin_s = time.perf_counter()
    importlib.import_module("common.inference.onnx_engine" if kind == "onnx" else "common.inference.torch_engines")
    if kind == "onnx":
        importlib.import_module("onnxruntime")
    from common.inference.engines import open_model

    imported_s = time.perf_counter()
    gpu = None
    if device.startswith("cuda"):
        from common.inference.gpu_memory import GpuMemoryWatch

        gpu = GpuMemoryWatch(device)
    baseline_bytes = _status_bytes("VmRSS")
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
    opening_s = time.perf_counter()
    engine = open_model(path_of_model, device, num_threads)
    opened_s = time.perf_counter()
    engine(inputs)
    answered_s = time.perf_counter()
    for _ in range(MAX_CALLS):
        engine(inputs)
        if time.perf_counter() - answered_s > CALLS_LIMIT_S:
            break
    report = {
        "import_s": imported_s - begin_s,
        "load_s": opened_s - opening_s,
        "first_call_s": answered_s - opened_s,
        "baseline_bytes": baseline_bytes,
        "peak_bytes": _status_bytes("VmHWM"),
        "gpu": vars(gpu.read()) if gpu else None,
    }
    nodes = _nodes_by_provider(path_of_model, device, num_threads, inputs) if kind == "onnx" and gpu else None
    return {**report, "nodes_by_provider": nodes}


def _nodes_by_provider(path: Path, device: str, num_threads: int, inputs: np.ndarray) -> dict[str, int]:
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
        report = probe(request["path"], request["device"], request["num_threads"], inputs)
    except ToolError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
