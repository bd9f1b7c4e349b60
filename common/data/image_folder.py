"""Images in folders named after their classes: ``root/{train,val,test}/class/*.png``, or one ``root/class/*.png``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.dataset import DataProblem, ImageFiles, counted, first_named
from common.data.image_files import EXTENSIONS, ImageHeader, UnreadableImageError, decode_image, read_header
from common.data.normalization import pixel_sums
from common.data.raw import UNSPLIT, RawData, RawSamples, SourceRequest, for_each_in_threads
from common.exits import InputFileError

_PART_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class ListedPart:
    """The image files of one part, sorted by class and name. ``problems`` maps a sample's number to its fault."""

    folder: Path
    class_names: list[str]
    paths: list[Path]
    classes: list[str]
    headers: list[ImageHeader | None]
    faults: dict[int, str]
    ignored: list[Path]


@dataclass(frozen=True)
class DecodingPlan:
    """The shape (C, H, W) that all images are brought to, and whether their pixels are kept."""

    shape: tuple[int, int, int]
    resize: bool
    in_memory: bool


def read(request: SourceRequest) -> RawData:
    """Find, check and measure all images; hold their pixels where that fits ``request.memory_budget_bytes``.

    Every file is decoded once here, also where it will be streamed: that is what finds the damaged ones before the
    training does, and what the statistics and the fingerprint are made of.

    Raises:
        InputFileError: no folder, no readable image, or sizes that differ with no ``image_size`` to bring them to.
    """
    root = request.require_root("a folder with train/, val/ and test/, or one folder a class")
    if not root.is_dir():
        raise InputFileError("is no folder", path=root, field="data.root")
    folders = _part_folders(root) if request.expected is None else _test_folder(root)
    parts = {name: list_images(folder, request.num_threads) for name, folder in folders.items()}
    if not any(part.paths for part in parts.values()):
        raise InputFileError(
            "holds no images", path=root, field="data.root", hint=f"expected class/*{'|'.join(EXTENSIONS)} in it"
        )
    class_names = sorted({name for part in parts.values() for name in part.class_names})
    plan = _plan(list(parts.values()), root, request)
    data = RawData(
        name=root.resolve().name,
        kind="image",
        class_names=class_names,
        parts={},
        input_shape=plan.shape,
        resize=plan.shape[1:] if plan.resize else None,
    )
    for name, part in parts.items():
        data.parts[name] = decode_part(part, root, class_names, plan, request.num_threads)
        data.problems += faults_as_problems(part, root, None if name == UNSPLIT else name)
        data.notices += _notices(part, root, plan)
    return data


def list_images(folder: Path, num_threads: int) -> ListedPart:
    """All image files of ``folder/class/``, with their headers read. Hidden files and folders are passed over.

    Raises:
        InputFileError: a folder may not be listed.
    """
    try:
        part = _list_files(folder)
    except OSError as error:
        raise InputFileError(f"cannot be listed: {error.strerror}", path=error.filename) from error
    _read_headers(part, num_threads)
    return part


def decode_part(
    part: ListedPart, root: Path, class_names: Sequence[str], plan: DecodingPlan, num_threads: int
) -> RawSamples:
    """Decode every image of ``part``; those that cannot be are noted in ``part.faults`` and left out."""
    count, channels = len(part.paths), plan.shape[0]
    index_of = {name: index for index, name in enumerate(class_names)}
    samples = RawSamples(
        labels=np.array([index_of[name] for name in part.classes], dtype=np.int64),
        names=[path.relative_to(root).as_posix() for path in part.paths],
        inputs=np.empty((count, *plan.shape), dtype=np.uint8) if plan.in_memory else None,
        image_files=None if plan.in_memory else ImageFiles([str(path) for path in part.paths], plan.shape, plan.resize),
        digests=np.zeros((count, 32), dtype=np.uint8),
        sums=np.zeros((count, channels, 2), dtype=np.int64),
    )

    def decode(index: int) -> None:
        if index in part.faults:
            return
        try:
            pixels = decode_image(part.paths[index], plan.shape, resize=plan.resize)
        except UnreadableImageError as error:
            part.faults[index] = str(error)
            return
        samples.digests[index] = np.frombuffer(hashlib.sha256(pixels.data).digest(), dtype=np.uint8)
        samples.sums[index] = pixel_sums(pixels[None])[0]
        if samples.inputs is not None:
            samples.inputs[index] = pixels

    for_each_in_threads(decode, count, num_threads)
    if part.faults:
        samples = samples.take(np.array([index for index in range(count) if index not in part.faults], dtype=np.int64))
    return samples


def faults_as_problems(part: ListedPart, root: Path, split: str | None) -> list[DataProblem]:
    """The unreadable images of a part, named and counted."""
    if not part.faults:
        return []
    named = [f"{part.paths[index].relative_to(root)} ({part.faults[index]})" for index in sorted(part.faults)]
    count = len(named)
    where = f"{split}: " if split else ""
    message = (
        f"{where}{counted(count, 'image')} of {len(part.paths)} cannot be read, left out: {first_named(named, count)}"
    )
    return [DataProblem("unreadable_image", split, message, count, tuple(named[:10]))]


def _part_folders(root: Path) -> dict[str, Path]:
    found = {}
    for name, aliases in _PART_FOLDERS.items():
        folders = [root / alias for alias in aliases if (root / alias).is_dir()]
        if folders:
            found[name] = folders[0]
    if found and "train" not in found:
        present = " and ".join(folder.name + "/" for folder in found.values())
        raise InputFileError(f"holds {present} but no train/", path=root, field="data.root")
    return found or {UNSPLIT: root}


def _list_files(folder: Path) -> ListedPart:
    class_folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    part = ListedPart(folder, class_folders, [], [], [], {}, [])
    for class_name in class_folders:
        for name in sorted(entry.name for entry in os.scandir(folder / class_name) if entry.name[0] != "."):
            path = folder / class_name / name
            if name.lower().endswith(EXTENSIONS):
                part.paths.append(path)
                part.classes.append(class_name)
            else:
                part.ignored.append(path)
    return part


def _test_folder(root: Path) -> dict[str, Path]:
    return {"test": root / "test"} if (root / "test").is_dir() else {UNSPLIT: root}


def _read_headers(part: ListedPart, num_threads: int) -> None:
    part.headers = [None] * len(part.paths)

    def read_one(index: int) -> None:
        try:
            part.headers[index] = read_header(part.paths[index])
        except UnreadableImageError as error:
            part.faults[index] = str(error)

    for_each_in_threads(read_one, len(part.paths), num_threads)


def _plan(parts: list[ListedPart], root: Path, request: SourceRequest) -> DecodingPlan:
    known = [(path, header) for part in parts for path, header in zip(part.paths, part.headers, strict=True) if header]
    if not known:
        faults = [
            f"{part.paths[index].relative_to(root)} {part.faults[index]}" for part in parts for index in part.faults
        ]
        raise InputFileError(
            f"none of its {len(faults)} images can be read: {first_named(faults, len(faults))}",
            path=root,
            field="data.root",
        )
    shape = _expected_shape(request, root) or (
        1 if sum(header.is_grey for _, header in known) > len(known) / 2 else 3,
        *(request.image_size or _common_size(known, root)),
    )
    fits = len(known) * int(np.prod(shape)) <= request.memory_budget_bytes
    in_memory = request.cache == "memory" or (request.cache == "auto" and fits)
    return DecodingPlan(shape, resize=request.image_size is not None, in_memory=in_memory)


def _expected_shape(request: SourceRequest, root: Path) -> tuple[int, int, int] | None:
    if request.expected is None:
        return None
    if len(request.expected.shape) != 3:
        raise InputFileError(f"holds images, but the model takes {request.expected.shape[0]} numbers", path=root)
    channels, height, width = request.expected.shape
    return channels, height, width


def _common_size(known: list[tuple[Path, ImageHeader]], root: Path) -> tuple[int, int]:
    first_path, first = known[0]
    for path, header in known:
        if header.size != first.size:
            a, b = (f"{h.size[1]}x{h.size[0]}" for h in (first, header))
            raise InputFileError(
                f"images differ in size: {first_path.relative_to(root)} is {a}, {path.relative_to(root)} is {b}",
                path=root,
                hint="set data.image_size to bring all to one size",
            )
    return first.size


def _notices(part: ListedPart, root: Path, plan: DecodingPlan) -> list[str]:
    notices = []
    if part.ignored:
        names = [str(path.relative_to(root)) for path in part.ignored]
        notices.append(f"not among the image formats, ignored: {first_named(names, len(names))}")
    wanted_grey = plan.shape[0] == 1
    converted = sum(1 for header in part.headers if header and header.is_grey != wanted_grey)
    if converted:
        mode = "grey" if wanted_grey else "RGB"
        notices.append(f"{part.folder}: {counted(converted, 'image')} of {len(part.paths)} converted to {mode}")
    return notices
