"""Values of command-line flags that both tools have."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from common.exits import UsageError


def margin(text: str) -> float:
    """A finite number above zero. Raises ArgumentTypeError or ValueError, which argparse reports."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def picture_path(output: Path) -> Path:
    """Beside the report, with its name.

    Raises:
        UsageError: the report would stand where its picture or a folder does.
    """
    if output.is_dir() or not output.name:
        raise UsageError("is a folder", path=output, field="--output", hint="name the report's file")
    if output.suffix.lower() == ".png":
        raise UsageError("is the name of a picture", path=output, field="--output", hint="end it in .md")
    return output.with_suffix(".png")
