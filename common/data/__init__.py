"""Data: from a source by name to checked splits, and from splits to batches on the device.

A source (``sources``) reads files into ``RawData``; ``loading`` splits, checks and measures it into a ``Dataset``;
``make_batches`` feeds a split to a model. Which samples are in which split, what is in a batch and in which order
depend on the data, the seed and the epoch alone.
"""

from common.data.batches import Batch, BatchSource, epoch_order, make_batches, split_into_batches
from common.data.dataset import DataProblem, Dataset, Split, SplitFractions
from common.data.held_out import load_test_set
from common.data.loading import load_dataset
from common.data.normalization import Normalizer
from common.data.sources import SOURCES

__all__ = [
    "SOURCES",
    "Batch",
    "BatchSource",
    "DataProblem",
    "Dataset",
    "Normalizer",
    "Split",
    "SplitFractions",
    "epoch_order",
    "load_dataset",
    "load_test_set",
    "make_batches",
    "split_into_batches",
]
