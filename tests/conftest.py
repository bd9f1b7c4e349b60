"""Shared by all tests: the project's root is importable, and nothing is written into it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Two test processes with two threads each would fight over two cores; and results repeat at a fixed thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
