"""Whatever a file holds, reading it gives data or one of our errors."""

from __future__ import annotations

import gzip
import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from common.data import load_dataset
from common.data.cifar import read_binary_batch, read_pickled_batch
from common.data.idx import read_idx
from common.data.image_files import UnreadableImageError, decode_image, read_header
from common.exits import ToolError

SETTINGS = settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
cut = st.one_of(st.none(), st.floats(0, 1))


def damage(content, edits, cut):
    damaged = bytearray(content)
    for position, value in edits:
        damaged[int(position * len(damaged))] = value
    return bytes(damaged if cut is None else damaged[: int(cut * len(damaged))])


def image_bytes(file_format, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, size=(9, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    options = {"exif": exif} if file_format in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@SETTINGS
@given(edits=edits, cut=cut)
def test_damaged_images(tmp_path, file_format, edits, cut):
    path = tmp_path / "image"
    path.write_bytes(damage(image_bytes(file_format), edits, cut))
    try:
        read_header(path)
        assert decode_image(path, (3, 5, 5), resize=True).shape == (3, 5, 5)
    except UnreadableImageError as error:
        assert str(error)


def npz_bytes():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(60.0).reshape(20, 3), y=np.arange(20) % 2)
    return buffer.getvalue()


def parquet_bytes():
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"a": np.arange(20.0), "kind": ["x", "y"] * 10}), buffer)
    return buffer.getvalue()


CSV = ("a,kind\n" + "".join(f"{number}.5,{'xy'[number % 2]}\n" for number in range(20))).encode()
TABLES = {"npz": npz_bytes(), "parquet": parquet_bytes(), "csv": CSV}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", TABLES)
@SETTINGS
@given(edits=edits, cut=cut)
def test_damaged_tables(tmp_path, source, edits, cut):
    path = tmp_path / f"table.{source}"
    path.write_bytes(damage(TABLES[source], edits, cut))
    try:
        dataset = load_dataset(source, root=path)
    except ToolError as error:
        assert str(path) in str(error) or error.field
    else:
        assert dataset.splits["train"].num_samples > 0


IMAGES = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)
BATCHES = {
    read_pickled_batch: pickle.dumps({b"data": IMAGES, b"labels": [0, 1]}, protocol=2),
    read_binary_batch: np.column_stack([np.uint8([0, 1]), IMAGES]).tobytes(),
    read_idx: b"\0\0\x08\2\0\0\0\2\0\0\0\3abcdef",
}


@pytest.mark.parametrize("read", BATCHES, ids=lambda read: read.__name__)
@SETTINGS
@given(edits=edits, cut=cut)
def test_damaged_archives(tmp_path, read, edits, cut):
    path = tmp_path / "batch"
    path.write_bytes(damage(BATCHES[read], edits, cut))
    assert_gives_arrays_or_an_error(read, path)


@SETTINGS
@given(edits=edits, cut=cut)
def test_damaged_gzip(tmp_path, edits, cut):
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(BATCHES[read_idx], mtime=0), edits, cut))
    assert_gives_arrays_or_an_error(read_idx, path)


def assert_gives_arrays_or_an_error(read, path):
    try:
        found = read(path)
    except ToolError as error:
        assert str(path) in str(error)
    else:
        assert all(array.dtype.kind in "iu" for array in (found if isinstance(found, tuple) else (found,)))
