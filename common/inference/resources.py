"""What a model costs a fresh process: memory, and the time until its first answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common.inference.engines import Engine
from common.inference.gpu_memory import GpuMemory

TIMEOUT_S = 600.0
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Resources:
    """Measured in a child process that did nothing else; bytes, seconds.

    Attributes:
        import_s: importing the runtime.
        load_s: opening the model after that.
        first_call_s: the first call, in which runtimes allocate and compile.
        baseline_bytes: resident memory once the runtime is imported; None where the system does not say.
        peak_bytes: largest resident memory from then on, while the model was opened and called; None as above.
        gpu: of the GPU's memory; None on a CPU run.
        nodes_by_provider: of an ONNX model on a GPU, how many nodes each execution provider runs; else None.
    """

    import_s: float
    load_s: float
    first_call_s: float
    baseline_bytes: int | None
    peak_bytes: int | None
    gpu: GpuMemory | None
    nodes_by_provider: dict[str, int] | None

    @property
    def over_baseline_bytes(self) -> int | None:
        if self.baseline_bytes is None or self.peak_bytes is None:
            return None
        return max(self.peak_bytes - self.baseline_bytes, 0)

    @property
    def cpu_nodes_pct(self) -> float | None:
        """Share of the nodes of a model on a GPU that run on the CPU all the same, percent."""
        if not self.nodes_by_provider:
            return None
        on_cpu = self.nodes_by_provider.get("CPUExecutionProvider", 0)
        return 100.0 * on_cpu / sum(self.nodes_by_provider.values())


def measure_resources(engine: Engine, batch_size: int) -> Resources | str:
    """Open and call the same model in a fresh process; the reason where that fails (killed for want of memory, say)."""
    request = {
        "path": str(engine.path.resolve()),
        "device": engine.device,
        "num_threads": engine.num_threads,
        "input_shape": list(engine.metadata.input_shape),
        "batch_size": batch_size,
    }
    search_path = os.pathsep.join(part for part in (str(_PROJECT), os.environ.get("PYTHONPATH")) if part)
    try:
        child = subprocess.run(
            [sys.executable, "-m", "common.inference.resource_probe", json.dumps(request)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": search_path},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the process that measured it took longer than {TIMEOUT_S:.0f} s"
    if child.returncode != 0:
        last_line = child.stderr.strip().split("\n")[-1]
        return f"the process that measured it ended with {child.returncode} ({last_line})"
    report = json.loads(child.stdout.strip().split("\n")[-1])
    gpu = report.pop("gpu")
    return Resources(**report, gpu=None if gpu is None else GpuMemory(**gpu))
