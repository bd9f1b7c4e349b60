"""MNIST and CIFAR-10 in the files that they are distributed as, here with few images."""

from __future__ import annotations

import gzip
import pickle
import struct

import numpy as np
import pytest

from common.data import load_dataset
from common.data.cifar import read_binary_batch, read_pickled_batch
from common.data.idx import read_idx
from common.exits import InputFileError


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def digits(count, seed):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, size=(count, 28, 28), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist(tmp_path, compressed):
    folder = tmp_path / "MNIST" / "raw" if compressed else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 100), ("t10k", 20)):
        images, labels = digits(count, seed=count)
        for kind, array in (("images-idx3-ubyte", images), ("labels.idx1-ubyte", labels)):
            content = gzip.compress(idx(array)) if compressed else idx(array)
            (folder / f"{prefix}-{kind}{'.gz' if compressed else ''}").write_bytes(content)
    dataset = load_dataset("mnist", root=tmp_path)
    assert dataset.name == "mnist" and dataset.input_shape == (1, 28, 28) and dataset.num_classes == 10
    assert {name: split.num_samples for name, split in dataset.splits.items()} == {"train": 85, "val": 15, "test": 20}
    images, labels = digits(20, seed=20)
    assert np.array_equal(dataset.splits["test"].inputs[:, 0].numpy(), images)
    assert np.array_equal(dataset.splits["test"].labels.numpy(), labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "no idx file of unsigned bytes"),
        (idx(np.zeros((3, 2), np.uint8))[:-1], r"shorter than its header says, \(3, 2\)"),
        (idx(np.zeros((3, 2), np.uint8)) + b"x", "longer than its header says"),
        (struct.pack(">HBB4I", 0, 8, 4, *[2**32 - 1] * 4), "cannot be read as an idx file"),
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        read_idx(tmp_path / "a")


def test_damaged_gzip(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(np.arange(250, dtype=np.uint8)))[:-20])
    with pytest.raises(InputFileError, match="cannot be read as an idx file"):
        read_idx(tmp_path / "a.gz")


def test_missing_mnist_file_is_named(tmp_path):
    with pytest.raises(InputFileError, match="has no file train-images-idx3-ubyte"):
        load_dataset("mnist", root=tmp_path)


def cifar_batch(seed, count=20):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, size=(count, 3, 32, 32), dtype=np.uint8), np.arange(count) % 10


def write_cifar(folder, binary):
    folder.mkdir()
    for seed, name in enumerate(["test_batch", *(f"data_batch_{number}" for number in range(1, 6))]):
        images, labels = cifar_batch(seed)
        flat = images.reshape(len(images), -1)
        if binary:
            (folder / f"{name}.bin").write_bytes(np.column_stack([labels.astype(np.uint8), flat]).tobytes())
        else:
            content = {b"batch_label": b"x", b"labels": labels.tolist(), b"data": flat, b"filenames": [b"a.png"]}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def test_both_versions_of_cifar_are_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_cifar(tmp_path / "a" / "cifar-10-batches-bin", binary=True)
    write_cifar(tmp_path / "b" / "cifar-10-batches-py", binary=False)
    binary, pickled = (load_dataset("cifar10", root=tmp_path / name) for name in "ab")
    assert binary.fingerprint == pickled.fingerprint
    assert binary.input_shape == (3, 32, 32) and binary.class_names[3] == "cat"
    assert {name: split.num_samples for name, split in binary.splits.items()} == {"train": 85, "val": 15, "test": 20}
    assert np.array_equal(binary.splits["test"].inputs.numpy(), cifar_batch(0)[0])


def test_damaged_cifar_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\0" * 3074)
    with pytest.raises(InputFileError, match="no whole number of 3073-byte records"):
        read_binary_batch(path)
    with pytest.raises(InputFileError, match="cannot be read as a CIFAR-10 batch"):
        read_pickled_batch(path)
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}))
    with pytest.raises(InputFileError, match="holds no images and labels"):
        read_pickled_batch(path)
    with pytest.raises(InputFileError, match="holds no CIFAR-10 batches"):
        load_dataset("cifar10", root=tmp_path)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    (tmp_path / "a").write_bytes(pickle.dumps({b"data": Trap(), b"labels": []}))
    with pytest.raises(InputFileError, match=r"asks for builtins\.eval, which is never loaded"):
        read_pickled_batch(tmp_path / "a")
    assert not (tmp_path / "sprung").exists()
