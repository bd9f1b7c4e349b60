"""The house's map: imports only run downwards, and what must start fast imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [
    {"exits", "atomic", "command", "console", "signals", "import_path", "choices", "record_texts", "late", "loading"},
    {
        "config", "metrics_file", "run_folder", "manifest", "checkpoint_container", "environment", "nvml",
        "classification_metrics", "plots", "tensorboard_log", "step_trace", "guides", "statistics",
        "comparison", "comparison_plots", "diagnosis", "model_metadata", "markdown", "results_report",
        "search_results",
    },
    {
        "seeding", "device", "data", "augmentation", "models", "optimizers", "schedulers", "losses", "ema",
        "checkpoints", "gpu_monitor", "parallel", "process_rendezvous", "synchronized_batch_norm", "health",
    },
    {"engine", "export", "inference", "search", "checkpoint_load_probe"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS, 1) for name in names}
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
MODULES = sorted((ROOT / "common").rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; relative imports are not used in this project."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def component(path: Path) -> str:
    return path.relative_to(ROOT / "common").parts[0].removesuffix(".py")


def common_imports(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("common.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    own = component(path)
    if own == "__init__":
        assert not common_imports(path)
        return
    assert own in LEVEL, f"{own} is missing from the map of layers"
    for other in common_imports(path) - {own}:
        assert LEVEL[other] <= LEVEL[own], f"{path.name} (layer {LEVEL[own]}) imports {other} (layer {LEVEL[other]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lower_layers_never_import_torch(path):
    own = component(path)
    roots = {name.split(".")[0] for name in imported_modules(path)}
    if own == "__init__" or LEVEL[own] <= 2:
        assert "torch" not in roots


@pytest.mark.parametrize("path", [ROOT / f"{name}.py" for name in SCRIPTS], ids=SCRIPTS)
def test_scripts_never_import_each_other(path):
    assert not {name.split(".")[0] for name in imported_modules(path)} & (set(SCRIPTS) - {path.stem})


def test_components_do_not_know_the_config():
    for path in MODULES:
        if LEVEL.get(component(path)) == 3:
            assert "config" not in common_imports(path), f"{path.name} takes the whole config"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_has_examples(script):
    heavy = ("torch", "numpy", "pydantic", "yaml", "matplotlib", "sklearn", "rich", "onnx", "onnxruntime", "optuna")
    code = (
        f"import sys, {script}\n"
        f"try: {script}.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('HEAVY', sorted(set({heavy!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert f"python {script}.py" in done.stdout and "exit code" in done.stdout.lower()
