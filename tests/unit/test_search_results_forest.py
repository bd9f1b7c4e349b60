"""The forests behind the importances, against those of scikit-learn and against what must be true of any."""

from __future__ import annotations

import numpy as np
import pytest

from common.search_results import forest
from common.search_results.forest import permutation_importances


def a_study(num_samples, seed=0):
    """Two columns that matter, the first more, a block of two that does not; and what is learnt from them."""
    rng = np.random.default_rng(seed)
    strong, weak = rng.integers(5, size=num_samples), rng.integers(4, size=num_samples)
    kind = rng.integers(2, size=num_samples)
    targets = 3.0 * (strong - 2.0) ** 2 + weak + rng.normal(0, 0.3, num_samples)
    return [strong[:, None], weak[:, None], np.stack([kind == 0, kind == 1], axis=1).astype(float)], targets


def by_scikit_learn(blocks, targets, num_trees):
    """The same importances with scikit-learn's trees."""
    from sklearn.ensemble import RandomForestRegressor

    features, ends = np.concatenate(blocks, axis=1), np.cumsum([block.shape[1] for block in blocks])
    trees = RandomForestRegressor(num_trees, min_samples_leaf=2, max_features=0.7, random_state=0)
    trees.fit(features, targets)
    rng, rises = np.random.default_rng(0), []
    for tree, seen in zip(trees.estimators_, trees.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(len(targets)), seen)
        own = features[unseen]

        def error(values, tree=tree, unseen=unseen):
            return np.mean((tree.predict(values) - targets[unseen]) ** 2)

        row = []
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            shuffled = own.copy()
            shuffled[:, start:end] = own[rng.permutation(len(unseen)), start:end]
            row.append(error(shuffled) - error(own))
        rises.append(row)
    return np.mean(rises, axis=0) / targets.var()


@pytest.mark.parametrize(("num_samples", "tolerance"), [(20, 0.1), (120, 0.02)])
def test_as_scikit_learn_has_it(num_samples, tolerance):
    blocks, targets = a_study(num_samples)
    ours = permutation_importances(blocks, [targets], num_trees=400, seed=0)[0]
    theirs = by_scikit_learn(blocks, targets, 400)
    assert ours == pytest.approx(theirs, rel=0.05, abs=tolerance)
    assert ours[0] > ours[1] > ours[2]


def test_each_forest_learns_its_own_targets():
    blocks, targets = a_study(60)
    both = permutation_importances(blocks, [targets, blocks[1][:, 0]], num_trees=60, seed=0)
    assert both.shape == (2, 3)
    assert both[0].argmax() == 0 and both[1].argmax() == 1
    assert np.abs(both[1][[0, 2]]).max() < 0.1 < 1.0 < both[1][1]


def test_the_scale_of_the_targets_does_not_matter_and_the_same_seed_gives_the_same():
    blocks, targets = a_study(40)
    once = permutation_importances(blocks, [targets], num_trees=30, seed=7)
    assert np.array_equal(once, permutation_importances(blocks, [targets], num_trees=30, seed=7))
    assert permutation_importances(blocks, [4 * targets], num_trees=30, seed=7) == pytest.approx(once)


def test_what_does_not_vary_has_no_importance():
    _, targets = a_study(30)
    shares = permutation_importances([np.ones((30, 1)), np.arange(30.0)[:, None]], [targets], num_trees=20, seed=0)
    assert shares[0, 0] == 0.0


def test_many_values_are_put_together_and_still_tell(monkeypatch):
    monkeypatch.setattr(forest, "MAX_BINS", 4)
    values = np.arange(200.0)[:, None]
    share = permutation_importances([values], [(values[:, 0] > 99).astype(float)], num_trees=20, seed=0)
    assert share[0, 0] > 1.5


def test_forests_that_do_not_fit_in_at_once_are_grown_one_after_another(monkeypatch):
    blocks, targets = a_study(30)
    monkeypatch.setattr(forest, "_MAX_PAIRS", 1)
    shares = permutation_importances(blocks, [targets, -targets, targets[::-1]], num_trees=200, seed=0)
    assert shares[0] == pytest.approx(shares[1], rel=0.2, abs=0.05) and shares[2, 0] < shares[0, 0] / 2


def test_targets_that_are_all_alike_are_refused():
    with pytest.raises(ValueError, match="all alike"):
        permutation_importances([np.arange(5.0)[:, None]], [np.ones(5)], num_trees=3, seed=0)
