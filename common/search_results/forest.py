"""Random forests for permutation importance, many forests at once.

A tree of some dozen trials takes a machine-learning library longer to set up than to grow, and the library itself a
second to load. Here all trees of all forests grow together, level by level, as sums over groups of samples. Source:
Breiman 2001, doi:10.1023/A:1010933404324.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST_IN_LEAF = 2
SHARE_OF_FEATURES = 0.7
# Values of a feature beyond this number are put together with their neighbours.
MAX_BINS = 32
# Samples of all trees together that are grown at once: it bounds the memory, and nothing else.
_MAX_PAIRS = 100_000
# Gains below this share of the variance are rounding errors.
_LEAST_GAIN = 1e-9


def permutation_importances(
    blocks: Sequence[npt.NDArray[np.floating]], targets_SN: npt.ArrayLike, *, num_trees: int, seed: int
) -> Floats:
    """By how much shuffling a block of features raises each forest's error on samples that its trees did not see.

    Args:
        blocks: P arrays of shape (N, columns), whose columns are shuffled together.
        targets_SN: what each of S forests learns, shape (S, N).
        num_trees: of each forest.
    Returns:
        Shape (S, P): shares of the variance of the forest's targets, averaged over its trees; below 0 where shuffling
        happened to help.
    Raises:
        ValueError: the targets of a forest are all alike.
    """
    targets_SN = np.asarray(targets_SN, dtype=np.float64)
    variances_S = targets_SN.var(axis=1)
    if not variances_S.all():
        raise ValueError("the targets of a forest are all alike")
    targets_SN = targets_SN - targets_SN.mean(axis=1, keepdims=True)  # squares of large numbers would lose digits
    codes_FN = np.array([_codes(column) for block in blocks for column in np.asarray(block).T])
    block_of_F = np.repeat(np.arange(len(blocks)), [np.shape(block)[1] for block in blocks])
    rng = np.random.default_rng(seed)
    at_once = max(1, _MAX_PAIRS // (num_trees * targets_SN.shape[1]))
    parts = []
    for first in range(0, len(targets_SN), at_once):
        targets_TN = np.repeat(targets_SN[first : first + at_once], num_trees, axis=0)
        rises_TP = _error_rises(codes_FN, block_of_F, targets_TN, rng)
        # A tree that saw nearly everything says nothing: its row is NaN.
        parts.append(np.nanmean(rises_TP.reshape(-1, num_trees, len(blocks)), axis=1))
    return np.concatenate(parts) / variances_S[:, None]


def _codes(column: npt.NDArray) -> Ints:
    """The values as whole numbers from 0 in their order, at most ``MAX_BINS`` of them."""
    values, codes = np.unique(column, return_inverse=True)
    return codes if len(values) <= MAX_BINS else codes * MAX_BINS // len(values)


def _error_rises(codes_FN: Ints, block_of_F: Ints, targets_TN: Floats, rng: np.random.Generator) -> Floats:
    """Of every tree and block the rise of the mean squared error, shape (T, P)."""
    num_trees, num_samples = targets_TN.shape
    drawn_TN = _bootstrap(num_trees, num_samples, rng)
    levels = list(_grow(codes_FN, targets_TN, drawn_TN, rng))
    # Q pairs of a tree and a sample that it did not see, ordered by tree.
    tree_Q, sample_Q = np.nonzero(drawn_TN == 0)
    counts_T = np.bincount(tree_Q, minlength=num_trees).astype(np.float64)
    counts_T[counts_T < 2] = np.nan

    def error_T(samples_FQ: Ints) -> Floats:
        misses_Q = _predict(levels, codes_FN, tree_Q, samples_FQ) - targets_TN[tree_Q, sample_Q]
        return np.bincount(tree_Q, misses_Q**2, num_trees) / counts_T

    own_FQ = np.broadcast_to(sample_Q, (len(codes_FN), len(sample_Q)))
    before_T, rises = error_T(own_FQ), []
    for block in range(block_of_F[-1] + 1):
        shuffled_Q = sample_Q[np.lexsort((rng.random(len(tree_Q)), tree_Q))]  # each tree's own among themselves
        rises.append(error_T(np.where((block_of_F == block)[:, None], shuffled_Q, own_FQ)) - before_T)
    return np.stack(rises, axis=1)


def _bootstrap(num_trees: int, num_samples: int, rng: np.random.Generator) -> Ints:
    """How often each tree sees each sample: as many draws as there are samples, with replacement."""
    drawn = rng.integers(num_samples, size=(num_trees, num_samples)) + num_samples * np.arange(num_trees)[:, None]
    return np.bincount(drawn.ravel(), minlength=num_trees * num_samples).reshape(num_trees, num_samples)


@dataclass(frozen=True)
class _Level:
    """The nodes of one depth of all trees. ``feature`` is -1 in a leaf; samples with codes up to ``threshold`` go to
    the node ``left`` of the next level, the others to the one after it."""

    value: Floats
    feature: Ints
    threshold: Ints
    left: Ints


def _grow(codes_FN: Ints, targets_TN: Floats, drawn_TN: Ints, rng: np.random.Generator) -> Iterator[_Level]:
    tree, sample = np.nonzero(drawn_TN)
    weight, node, num_nodes = drawn_TN[tree, sample].astype(np.float64), tree, len(targets_TN)
    target = targets_TN[tree, sample]
    while num_nodes:
        level = _split(codes_FN[:, sample], target, weight, node, num_nodes, rng)
        yield level
        goes_on = level.feature[node] >= 0
        sample, target, weight, node = sample[goes_on], target[goes_on], weight[goes_on], node[goes_on]
        node = level.left[node] + (codes_FN[level.feature[node], sample] > level.threshold[node])
        num_nodes = 2 * int((level.feature >= 0).sum())


def _split(
    codes_FI: Ints, target_I: Floats, weight_I: Floats, node_I: Ints, num_nodes: int, rng: np.random.Generator
) -> _Level:
    """The best split of every node, among features drawn for it; I are the samples in the nodes, one by one."""
    sums_I = np.stack([np.ones_like(weight_I), weight_I, weight_I * target_I])
    _, weight_G, total_G = (np.bincount(node_I, row_I, num_nodes) for row_I in sums_I)
    best = [_best_threshold(codes_I, sums_I, node_I, num_nodes) for codes_I in codes_FI]
    threshold_FG, gain_FG = (np.array(rows) for rows in zip(*best, strict=True))
    gain_FG = np.where(_is_drawn(gain_FG, rng), gain_FG, -np.inf)
    feature_G, nodes = gain_FG.argmax(axis=0), np.arange(num_nodes)
    square_G = np.bincount(node_I, weight_I * target_I**2, num_nodes)
    feature_G = np.where(gain_FG[feature_G, nodes] > _LEAST_GAIN * square_G, feature_G, -1)
    left_G = 2 * (np.cumsum(feature_G >= 0) - 1)
    return _Level(total_G / weight_G, feature_G, threshold_FG[feature_G, nodes], left_G)


def _best_threshold(codes_I: Ints, sums_I: Floats, node_I: Ints, num_nodes: int) -> tuple[Ints, Floats]:
    """The feature's best threshold in every node, and by how much the squared error falls there.

    That is 0 where no threshold leaves enough samples on both sides, -inf where the feature is the same in all.
    """
    bins = max(2, int(codes_I.max()) + 1)
    tables = (np.bincount(node_I * bins + codes_I, row_I, num_nodes * bins) for row_I in sums_I)
    sums_3GB = np.stack(list(tables)).reshape(3, num_nodes, bins).cumsum(axis=2)
    all_3G1, below_3GB = sums_3GB[:, :, -1:], sums_3GB[:, :, :-1]
    above_3GB = all_3G1 - below_3GB
    with np.errstate(divide="ignore", invalid="ignore"):
        squares_GB = [sums[2] ** 2 / sums[1] for sums in (below_3GB, above_3GB, all_3G1)]
    fewest_GB = np.minimum(below_3GB[0], above_3GB[0])
    gains_GB = np.where(fewest_GB >= FEWEST_IN_LEAF, squares_GB[0] + squares_GB[1] - squares_GB[2],
                        np.where(fewest_GB > 0, 0.0, -np.inf))  # fmt: skip
    threshold_G = gains_GB.argmax(axis=1)
    return threshold_G, gains_GB[np.arange(num_nodes), threshold_G]


def _is_drawn(gain_FG: Floats, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which features each node may be split by: so many at random, and at least one that varies in it."""
    number = max(1, int(SHARE_OF_FEATURES * len(gain_FG)))
    keys_FG = rng.random(gain_FG.shape)
    varying_FG = np.where(np.isneginf(gain_FG), np.inf, keys_FG)
    return (keys_FG.argsort(axis=0).argsort(axis=0) < number) | (varying_FG == varying_FG.min(axis=0))


def _predict(levels: Sequence[_Level], codes_FN: Ints, tree_Q: Ints, samples_FQ: Ints) -> Floats:
    """What each tree says of a sample whose features are those of the samples given for each."""
    predicted_Q, query, node = np.empty(len(tree_Q)), np.arange(len(tree_Q)), tree_Q
    for level in levels:
        predicted_Q[query] = level.value[node]
        goes_on = level.feature[node] >= 0
        query, node = query[goes_on], node[goes_on]
        feature = level.feature[node]
        node = level.left[node] + (codes_FN[feature, samples_FQ[feature, query]] > level.threshold[node])
    return predicted_Q
