"""Everything that can be said about one checkpoint file, and the verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common.checkpoint_container.description import CheckpointDescription, describe
from common.checkpoint_container.formats import NotACheckpointError
from common.checkpoint_container.integrity import IntegrityReport, verify
from common.checkpoint_container.tensor_values import ValueProblem, find_value_problems
from common.exits import CheckFailedError, Exit
from common.manifest import Manifest, load_manifest

VERIFIED_BY_DEFAULT_BYTES = 10**9
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LoadOutcome:
    """What a child process with torch found: ``model`` is the architecture that took the weights, None if not built."""

    loaded: bool
    model: str | None
    reason: str | None


@dataclass(frozen=True)
class Inspection:
    """One checkpoint: ``integrity`` is None where its bytes were not verified, ``load`` where it was not loaded."""

    path: Path
    description: CheckpointDescription
    manifest: Manifest
    integrity: IntegrityReport | None
    value_problems: tuple[ValueProblem, ...]
    load: LoadOutcome | None

    @property
    def is_damaged(self) -> bool:
        return bool(self.integrity.damages if self.integrity else self.description.damages)

    @property
    def has_nan_weights(self) -> bool:
        return any(problem.kind == "nan" and problem.is_weight for problem in self.value_problems)

    @property
    def reason_against_loading(self) -> str | None:
        """Why ``torch.load(weights_only=True)`` fails or would give wrong values; None where it should not."""
        if self.is_damaged:
            return "damaged"
        if self.description.unsafe_globals:
            return f"unsafe: asks for {', '.join(self.description.unsafe_globals[:3])}"
        if self.load and not self.load.loaded:
            return self.load.reason
        return None

    @property
    def exit(self) -> Exit:
        return Exit.NO if self.reason_against_loading or self.has_nan_weights else Exit.DONE


def inspect_checkpoint(path: str | Path, *, check_bytes: bool | None = None, load: bool = False) -> Inspection:
    """Inspect one file.

    Args:
        check_bytes: read every byte and every value; None for files under 1 GB only.
        load: also load it in a child process, where nothing speaks against it so far.
    Raises:
        NotACheckpointError: missing, empty, or something else than a checkpoint.
        CheckFailedError: something else than a checkpoint, but the manifest beside it lists it as one.
    """
    path = Path(path)
    manifest = load_manifest(path.parent)
    entry = manifest.entries.get(path.name)
    try:
        description = describe(path)
    except NotACheckpointError as error:
        if entry is None or error.kind == "missing":
            raise
        message = f"damaged: {error.message}, but the manifest lists a checkpoint of {entry.size_bytes} bytes"
        raise CheckFailedError(message, path=path, hint="use another checkpoint") from None
    if check_bytes is None:
        check_bytes = description.size_bytes < VERIFIED_BY_DEFAULT_BYTES
    integrity = verify(path, entry, description=description) if check_bytes else None
    values = tuple(find_value_problems(description)) if check_bytes else ()
    inspection = Inspection(path, description, manifest, integrity, values, None)
    if not load or inspection.reason_against_loading:
        return inspection
    return Inspection(path, description, manifest, integrity, values, load_in_child(path))


def load_in_child(path: Path) -> LoadOutcome:
    """Load the file with torch in a process of its own, so that not even a crash of it reaches this one."""
    search_path = os.pathsep.join(part for part in (str(_PROJECT), os.environ.get("PYTHONPATH")) if part)
    child = subprocess.run(
        [sys.executable, "-m", "common.checkpoint_load_probe", str(path.resolve())],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search_path},
        check=False,
    )
    if child.returncode != 0:
        last_line = (child.stderr.strip().split("\n") or [""])[-1]
        return LoadOutcome(False, None, f"the process that loaded it ended with {child.returncode} ({last_line})")
    return LoadOutcome(**json.loads(child.stdout))
