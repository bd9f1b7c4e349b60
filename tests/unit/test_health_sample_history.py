"""What is remembered of each sample: by the book, over interruptions and processes, and for labels that are wrong."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.checkpoints import state_sha256
from common.data import epoch_order, load_dataset, split_into_batches
from common.health import SampleHistory
from common.health.sample_history import QUANTILES, device_margins, margins
from common.models import build_model

LABELS = torch.arange(20) % 4


def fill_epoch(history: SampleHistory, epoch: int, *, batches: slice = slice(None)) -> dict:
    """Add (some of) an epoch's batches of made-up logits; returns the losses and margins of all samples."""
    generator = torch.Generator().manual_seed(epoch)
    num, labels = len(LABELS), LABELS
    logits = torch.randn(num, 4, generator=generator)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    for indices in split_into_batches(epoch_order(num, 0, epoch), 6)[batches]:
        history.add(indices, losses[indices], logits[indices])
    others = torch.where(functional.one_hot(labels, 4).bool(), -torch.inf, logits).amax(dim=1)
    return {"loss": losses.numpy(), "margin": (logits[torch.arange(num), labels] - others).numpy()}


def closed(epochs: range, history: SampleHistory | None = None) -> SampleHistory:
    history = history or SampleHistory(LABELS)
    for epoch in epochs:
        fill_epoch(history, epoch)
        history.close_epoch()
    return history


def written(history: SampleHistory, path: Path) -> dict[str, np.ndarray]:
    history.write(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def saved_and_loaded(history: SampleHistory) -> SampleHistory:
    """Through a file as a checkpoint is."""
    buffer = io.BytesIO()
    torch.save(history.state_dict(), buffer)
    buffer.seek(0)
    other = SampleHistory(LABELS)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


def test_means_last_values_and_forgetting_by_the_book(tmp_path):
    history = SampleHistory(LABELS)
    epochs = []
    for epoch in range(1, 6):
        epochs.append(fill_epoch(history, epoch))
        history.close_epoch()
    arrays = written(history, tmp_path / "samples.npz")
    losses, margins = (np.stack([epoch[key] for epoch in epochs]) for key in ("loss", "margin"))
    np.testing.assert_allclose(arrays["loss_mean"], losses.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(arrays["margin_mean"], margins.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(arrays["loss_last"], losses[-1])
    np.testing.assert_array_equal(arrays["margin_last"], margins[-1])
    np.testing.assert_array_equal(arrays["forgotten"], ((margins[:-1] > 0) & (margins[1:] <= 0)).sum(axis=0))
    assert (arrays["epochs"] == 5).all()
    signals = history.totals.signals()
    assert signals.num_samples_seen == 20
    assert signals.negative_margin_share == pytest.approx((margins.mean(axis=0) < 0).mean())
    assert signals.wrong_last_share == pytest.approx((margins[-1] < 0).mean())
    assert signals.loss_last_mean == pytest.approx(losses[-1].mean(), rel=1e-6)
    assert signals.margin_mean_quantiles[QUANTILES.index(0.5)] in np.sort(arrays["margin_mean"])[9:11]
    assert signals.margin_mean_quantiles == sorted(signals.margin_mean_quantiles)


def test_samples_that_were_not_trained_on(tmp_path):
    history = SampleHistory(LABELS)
    assert history.totals.signals() is None
    fill_epoch(history, 1, batches=slice(0, 2))
    history.close_epoch()
    arrays = written(history, tmp_path / "samples.npz")
    seen = arrays["epochs"] == 1
    assert seen.sum() == 12 and history.totals.signals().num_samples_seen == 12
    assert np.isnan(arrays["margin_mean"][~seen]).all() and np.isfinite(arrays["margin_mean"][seen]).all()


def test_waiting_batches_are_bounded(monkeypatch):
    monkeypatch.setattr("common.health.sample_history._MAX_WAITING_BATCHES", 2)
    bounded = SampleHistory(LABELS)
    fill_epoch(bounded, 1)
    assert len(bounded._epoch.waiting) < 2
    bounded.close_epoch()
    monkeypatch.undo()
    assert torch.equal(bounded.state_dict()["totals_RN"], closed(range(1, 2)).state_dict()["totals_RN"])


def test_closed_epochs_wait_until_somebody_asks_and_in_any_order():
    eager = SampleHistory(LABELS)
    expected = []
    for epoch in range(1, 6):
        fill_epoch(eager, epoch)
        eager.close_epoch()
        expected.append((eager.totals.signals(), eager.state_dict()["totals_RN"]))
    history, waiting = SampleHistory(LABELS), []
    for epoch in range(1, 6):
        fill_epoch(history, epoch)
        history.close_epoch()
        waiting.append((history.totals, history.late_state_dict()))
    assert history.totals._rows_RN is None
    for number in (3, 1, 4, 0, 2):
        totals, state = waiting[number]
        assert totals.signals() == expected[number][0]
        assert torch.equal(state()["totals_RN"], expected[number][1])


def test_what_waits_over_many_epochs_is_bounded_too(monkeypatch):
    monkeypatch.setattr("common.health.sample_history._MAX_WAITING_VALUES", 4 * len(LABELS) * 4)
    history = closed(range(1, 4))
    assert history.totals._rows_RN is None
    assert closed(range(4, 5), history).totals._rows_RN is not None


def test_the_bound_sees_batches_that_are_larger_than_the_first(monkeypatch):
    monkeypatch.setattr("common.health.sample_history._MAX_WAITING_VALUES", 40)
    history = SampleHistory(LABELS)
    for size in (1, 4, 4, 4, 4):
        history.add(torch.arange(size), torch.ones(size), torch.zeros(size, 4))
    assert len(history._epoch.waiting) < 4


def test_work_that_failed_can_be_done_again(monkeypatch):
    """As where memory runs out: the next try must not find the batches gone."""
    history = SampleHistory(LABELS)
    fill_epoch(history, 1)
    history.close_epoch()
    state = history.late_state_dict()
    with monkeypatch.context() as patched:
        patched.setattr("common.health.sample_history.margins", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            state()
    assert torch.equal(state()["totals_RN"], closed(range(1, 2)).state_dict()["totals_RN"])


def test_what_several_processes_have_summed_does_not_wait():
    history = SampleHistory(LABELS)
    fill_epoch(history, 1)
    history.close_epoch(lambda rows: rows)
    assert history.totals._rows_RN is not None


def test_thousands_of_epochs_may_wait():
    history, labels = SampleHistory(torch.zeros(1, dtype=torch.int64)), torch.zeros(1, dtype=torch.int64)
    for _ in range(3000):
        history.add(labels, torch.ones(1), torch.zeros(1, 2))
        history.close_epoch()
    assert history.state_dict()["totals_RN"][0].item() == 3000


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_an_interruption_changes_no_bit(stop_after):
    straight = closed(range(1, 4))
    history = closed(range(1, 3))
    fill_epoch(history, 3, batches=slice(0, stop_after))
    history = saved_and_loaded(history)
    fill_epoch(history, 3, batches=slice(stop_after, None))
    history.close_epoch()
    assert torch.equal(history.state_dict()["totals_RN"], straight.state_dict()["totals_RN"])
    assert history.totals.signals() == straight.totals.signals()


def test_saving_in_between_changes_nothing():
    history = closed(range(1, 2))
    fill_epoch(history, 2, batches=slice(0, 2))
    history.state_dict()
    fill_epoch(history, 2, batches=slice(2, None))
    history.close_epoch()
    assert torch.equal(history.state_dict()["totals_RN"], closed(range(1, 3)).state_dict()["totals_RN"])
    assert history.state_dict()["epoch_RN"] is None


def test_an_epoch_begun_anew():
    history = closed(range(1, 2))
    fill_epoch(history, 7, batches=slice(0, 3))
    history.forget_epoch()
    assert history.state_dict()["epoch_RN"] is None
    assert torch.equal(closed(range(2, 3), history).state_dict()["totals_RN"],
                       closed(range(1, 3)).state_dict()["totals_RN"])  # fmt: skip


def test_a_saved_state_stays_as_it_was():
    history = closed(range(1, 2))
    state = history.state_dict()
    before = state["totals_RN"].clone()
    closed(range(2, 4), history)
    assert torch.equal(state["totals_RN"], before)
    restored = SampleHistory(LABELS)
    restored.load_state_dict(state)
    closed(range(2, 4), restored)
    assert torch.equal(state["totals_RN"], before)


def test_a_history_of_other_data():
    with pytest.raises(ValueError, match="20 samples, not of 21"):
        SampleHistory(torch.zeros(21, dtype=torch.int64)).load_state_dict(closed(range(1, 2)).state_dict())


class Processes:
    """Histories of two processes that see every other batch; what ``World.sum`` does, in one process."""

    def __init__(self) -> None:
        self.histories = [SampleHistory(LABELS), SampleHistory(LABELS)]

    def train(self, epoch: int, batches: range) -> None:
        for batch in batches:
            fill_epoch(self.histories[batch % 2], epoch, batches=slice(batch, batch + 1))

    def total(self) -> torch.Tensor:
        return torch.from_numpy(sum(history._epoch.rows() for history in self.histories))

    def close_epoch(self) -> None:
        total = self.total()
        for history in self.histories:
            history.close_epoch(lambda _: total.clone())

    def state_dict(self) -> dict:
        total = self.total()
        first, second = (history.state_dict(lambda _: total.clone()) for history in self.histories)
        assert torch.equal(first["totals_RN"], second["totals_RN"])
        return first


@pytest.mark.parametrize("stop_after", [None, 2, 3])
def test_several_processes_remember_as_one(stop_after):
    processes = Processes()
    for epoch in (1, 2):
        processes.train(epoch, range(stop_after or 4))
        if stop_after:
            state = processes.state_dict()
            for number, history in enumerate(processes.histories):
                history.load_state_dict(state, is_main=number == 0)
            processes.train(epoch, range(stop_after, 4))
        processes.close_epoch()
    alone = closed(range(1, 3)).state_dict()["totals_RN"]
    for history in processes.histories:
        assert torch.equal(history.state_dict()["totals_RN"], alone)


def test_the_same_history_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        closed(range(1, 3)).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize("num_classes", [2, 10, 300])
def test_margins_in_memory_and_on_a_device_are_the_same(num_classes):
    logits = torch.randn(50, num_classes, generator=torch.Generator().manual_seed(0))
    logits[3, 1], logits[4, 0] = math.inf, math.nan
    labels = torch.arange(50) % num_classes
    rows = zip(logits[5:].tolist(), labels[5:].tolist(), strict=True)
    by_hand = [row[label] - max([*row[:label], *row[label + 1 :]]) for row, label in rows]
    on_device = device_margins(logits.clone(), labels).numpy()
    np.testing.assert_array_equal(margins(logits.numpy(), labels.numpy()), on_device)
    np.testing.assert_allclose(on_device[5:], by_hand, rtol=1e-5)


def test_numbers_that_are_not_finite_and_half_precision():
    history = SampleHistory(torch.tensor([0, 1]))
    logits = torch.tensor([[1.0, math.nan], [2.0, 5.0]], dtype=torch.bfloat16)
    history.add(torch.arange(2), torch.tensor([math.inf, 0.5]), logits)
    history.close_epoch()
    signals = history.totals.signals()
    assert signals.loss_last_mean is None
    assert history.state_dict()["totals_RN"][4, 1] == 3.0
    json.dumps(signals.as_dict(), allow_nan=False)


@pytest.fixture(scope="module")
def digits():
    dataset = load_dataset("digits", write_files=False)
    train = dataset.splits["train"]
    return dataset.normalizer()(train.inputs), train.labels


def trained(inputs: torch.Tensor, labels: torch.Tensor, epochs: int, *, watched: bool = True):
    """A small network trained on the digits: its history and its weights."""
    torch.manual_seed(0)
    model = build_model("simple_mlp", input_shape=(1, 8, 8), num_classes=10, dropout=0.1, hidden_dims=[64])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = SampleHistory(labels)
    for epoch in range(1, epochs + 1):
        for indices in split_into_batches(epoch_order(len(labels), 0, epoch), 64):
            optimizer.zero_grad()
            logits = model(inputs[indices])
            losses = functional.cross_entropy(logits, labels[indices], reduction="none")
            losses.mean().backward()
            if watched:
                history.add(indices, losses, logits)
            optimizer.step()
        if watched:
            history.close_epoch()
    return history, state_sha256(model.state_dict())


def flipped(labels: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    is_wrong = torch.rand(len(labels), generator=generator) < share
    other = (labels + torch.randint(1, 10, labels.shape, generator=generator)) % 10
    return torch.where(is_wrong, other, labels), is_wrong


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_wrong_labels_have_the_lowest_margins(share, digits, tmp_path):
    labels, is_wrong = flipped(digits[1], share)
    history, _ = trained(digits[0], labels, epochs=6)
    margin = written(history, tmp_path / "samples.npz")["margin_mean"]
    ranks = margin.argsort().argsort()
    num_wrong, num_right = int(is_wrong.sum()), int((~is_wrong).sum())
    below = ranks[is_wrong.numpy()].sum() - num_wrong * (num_wrong - 1) / 2
    area_under_roc = 1 - below / (num_wrong * num_right)
    assert area_under_roc > 0.95
    assert history.totals.signals().negative_margin_share == pytest.approx(share, abs=0.1)


def test_right_labels_have_positive_margins_and_watching_changes_no_bit(digits):
    history, watched_sha256 = trained(*digits, epochs=6)
    rng = torch.get_rng_state()
    _, plain_sha256 = trained(*digits, epochs=6, watched=False)
    assert history.totals.signals().negative_margin_share < 0.1
    assert watched_sha256 == plain_sha256 and torch.equal(rng, torch.get_rng_state())
