"""The real data that scikit-learn ships, read without importing scikit-learn where its files are as they have been."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from common.data.arrays import to_float32
from common.data.digits_folder import write_digits
from common.data.image_files import resize_images
from common.data.raw import UNSPLIT, RawData, RawSamples, SourceRequest
from common.exits import EnvironmentLackError

_DEFAULT_ROOT = Path("data")
_LARGEST_DIGIT_VALUE = 16


def read_digits(request: SourceRequest) -> RawData:
    """1,797 handwritten digits of 8x8 grey pixels (UCI ML, test part), sorted by class; written out as PNG files."""
    features, labels, _ = load_bundled("digits", from_digits_file)
    by_class = np.argsort(labels, kind="stable")
    images = np.round(features * (255 / _LARGEST_DIGIT_VALUE)).astype(np.uint8).reshape(-1, 1, 8, 8)
    numbers = by_class.tolist()
    original = images[by_class]
    inputs = original if request.image_size is None else resize_images(original, request.image_size)
    names = [f"{labels[number]}/{number:04d}.png" for number in numbers]
    return RawData(
        name="digits",
        kind="image",
        class_names=[str(digit) for digit in range(10)],
        parts={UNSPLIT: RawSamples(labels=labels[by_class], names=names, inputs=inputs)},
        input_shape=inputs.shape[1:],
        resize=request.image_size,
        after_split=partial(
            write_digits, request.root or _DEFAULT_ROOT, dict(zip(names, original, strict=True)), request.split
        ),
    )


def read_wine(request: SourceRequest) -> RawData:
    """178 wines of three cultivars, 13 chemical measures."""
    return _table("wine", "wine_data.csv")


def read_breast_cancer(request: SourceRequest) -> RawData:
    """569 tumours, malignant or benign, 30 measures (Wisconsin, diagnostic)."""
    return _table("breast_cancer", "breast_cancer.csv")


def read_iris(request: SourceRequest) -> RawData:
    """150 irises of three species, 4 measures."""
    return _table("iris", "iris.csv")


Arrays = tuple[np.ndarray, np.ndarray, list[str]]


def load_bundled(name: str, read: Callable[[Path], Arrays]) -> Arrays:
    """Features float64 (N, F), labels int64 (N,) and class names, by ``read`` or else by scikit-learn itself.

    Importing scikit-learn takes longer than a whole training on these data; its files have had one form since 2010.

    Raises:
        EnvironmentLackError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise EnvironmentLackError(
            f"the source {name} comes with scikit-learn, which is not installed", hint="pip install scikit-learn"
        )
    try:
        return read(Path(package.origin).parent / "datasets" / "data")
    except (OSError, ValueError):
        return from_library(name)


def from_digits_file(folder: Path) -> Arrays:
    """Reads ``digits.csv.gz``: 64 pixels of 0 to 16 and the digit in each row."""
    rows = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(np.int64), [str(digit) for digit in range(10)]


def from_table_file(file_name: str, folder: Path) -> Arrays:
    """Reads a table whose first row holds its height, its width and the class names."""
    path = folder / file_name
    with path.open(encoding="utf-8") as file:
        height, width, *class_names = file.readline().strip().split(",")
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    if rows.shape != (int(height), int(width) + 1):
        raise ValueError(f"{path} is not laid out as expected")
    return rows[:, :-1], rows[:, -1].astype(np.int64), class_names


def from_library(name: str) -> Arrays:
    """The same through scikit-learn's own function."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return bunch.data, bunch.target.astype(np.int64), [str(class_name) for class_name in bunch.target_names]


def _table(name: str, file_name: str) -> RawData:
    features, labels, class_names = load_bundled(name, partial(from_table_file, file_name))
    return RawData(
        name=name,
        kind="tabular",
        class_names=class_names,
        parts={
            UNSPLIT: RawSamples(
                labels=labels, names=[f"row {row}" for row in range(1, len(labels) + 1)], inputs=to_float32(features)
            )
        },
        input_shape=(features.shape[1],),
    )
