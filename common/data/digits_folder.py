"""The digits as ordinary image files under ``data/{train,val,test}/<class>/NNNN.png``, for tools that read files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from common.data.dataset import SplitFractions

if TYPE_CHECKING:
    from common.data.dataset import Dataset

MANIFEST_NAME = "digits.json"
_SCHEMA_VERSION = 1
_ABANDONED_AFTER_S = 600


def write_digits(
    root: Path, images: Mapping[str, np.ndarray], fractions: SplitFractions, dataset: Dataset
) -> list[str]:
    """Write every image under its split's folder, if ``root`` is empty or does not exist; returns notices.

    The files are written to a folder beside ``root``, which takes its place in one rename: a writer that is killed
    leaves ``root`` as it was, and of two writers at once the first one to finish wins. A folder that holds anything
    else is left alone, and so is one that cannot be written.

    Args:
        images: uint8 (1, 8, 8) by the name that samples have in ``dataset``, ``class/NNNN.png``.
    """
    manifest = {
        "schema_version": _SCHEMA_VERSION,
        "source": dataset.name,
        "split": asdict(fractions),
        "num_images": {name: split.num_samples for name, split in dataset.splits.items()},
    }
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            return _notice_about_contents(root, manifest)
        _write_in_one_step(root, images, manifest, dataset)
    except OSError as error:
        if _read_manifest(root) == manifest:  # another process was faster
            return []
        return [f"the digits were not written to {root}/ ({error.strerror or error}); training goes on without"]
    return [f"the digits were written to {root}/ as PNG files, {' + '.join(map(str, manifest['num_images'].values()))}"]


def _notice_about_contents(root: Path, manifest: Mapping) -> list[str]:
    present = _read_manifest(root)
    if present is None:
        return [f"{root}/ holds something else, so the digits are not written there"]
    if present == manifest:
        return []
    return [f"{root}/ holds the digits under another split, and is left as it is; remove it to have it written anew"]


def _read_manifest(root: Path) -> object:
    try:
        return json.loads((root / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_in_one_step(root: Path, images: Mapping[str, np.ndarray], manifest: Mapping, dataset: Dataset) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{root.name}.digits-"
    _remove_abandoned(root.parent, prefix)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=root.parent))
    try:
        # One level below, because mkdtemp's own folder is closed to everyone else.
        folder = temporary / root.name
        for name, split in dataset.splits.items():
            for class_name in dataset.class_names:
                (folder / name / class_name).mkdir(parents=True)
            for file_name in split.file_names or ():
                Image.fromarray(images[file_name][0]).save(folder / name / file_name)
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.rename(folder, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what a killed writer left, long enough ago that no living one can still be at work on it."""
    for leftover in folder.glob(f"{prefix}*.tmp"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)
