"""What studies are, for tests of the ledger; and a process that takes part in one. Imports no torch."""

from __future__ import annotations

from typing import Any

from common.search.definition import Definition
from common.search.ledger import open_ledger
from common.search.storage import Storage
from common.search_results.records import SpaceEntry

ENTRIES = (
    SpaceEntry("optimizer.learning_rate", choices=(0.001, 0.01)),
    SpaceEntry("training.batch_size", low=16, high=64, step=16),
)


def definition(**changes: Any) -> Definition:
    """What a study is, with any of it changed."""
    plain: dict[str, Any] = {
        "method": "random_search", "space": ENTRIES, "planned": 4, "seed": 42, "lag": 1, "metric": "val_acc",
        "epochs": 3, "base_sha256": "ab" * 32, "dataset": "cd" * 32, "trial_seed": 42, "num_threads": 1, "confirm": 2,
        "prune": False,
    }  # fmt: skip
    return Definition(**{**plain, **changes})


def take_many(url: str, owner: str, num_tasks: int, results: Any) -> None:
    """Open the study in the storage, which may still be empty, and put the tasks that were got into the queue."""
    storage = Storage(url)
    ledger = open_ledger(storage, "study", "maximize", create=True)
    assert ledger is not None
    ledger.set_up(definition(), None, owner)
    results.put([task for task in range(num_tasks) if ledger.take(f"trial/{task}", owner) is not None])
    storage.close()
