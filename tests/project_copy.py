"""The project as someone has it who has just cloned it, and a shell to type into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("common", "configs", "diagnostics", "phases")


def copy_project(folder: Path) -> Path:
    """Scripts, ``common/`` and what else is shipped, nothing generated."""
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def shell(project: Path, commands: str, *, timeout_s: float = 300) -> subprocess.CompletedProcess:
    """Run the commands as typed into a shell that stops at the first failure."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["bash", "-ec", commands], cwd=project, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
