"""How each training sample fares over the epochs: the samples that a model learns last are those with wrong labels."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import atomic
from common.health.numbers import finite
from common.late import Late

# Logits wait for the end of the epoch, where they are worked on at once; more than this would take too much memory.
_MAX_WAITING_VALUES = 1 << 22
_MAX_WAITING_BATCHES = 1024
QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90)

# Rows of the totals, each with one number per sample.
_EPOCHS, _LOSS_MEAN, _MARGIN_MEAN, _LOSS_LAST, _MARGIN_LAST, _FORGOTTEN = range(6)
_MEANS, _LAST = slice(_LOSS_MEAN, _MARGIN_MEAN + 1), slice(_LOSS_LAST, _MARGIN_LAST + 1)
# Rows of what the current epoch has brought so far.
_SEEN, _LOSS, _MARGIN = range(3)


@dataclass(frozen=True)
class SampleSignals:
    """Of the training samples seen so far. The margin is the logit of the label minus the largest other.

    Attributes:
        num_samples_seen: samples trained on at least once.
        margin_mean_quantiles: of the samples' mean margins over the epochs (area under the margin, AUM: Pleiss et al.
            2020, arXiv:2001.10528), at 1, 5, 10, 25, 50, 75 and 90%.
        negative_margin_share: samples whose mean margin is below 0, fraction in [0, 1]: on average another class was
            preferred. Label errors are among them.
        wrong_last_share: samples whose margin was below 0 when last trained on.
        loss_last_mean, loss_last_median: of the losses when last trained on, as the training counts them.
        forgotten_share: samples once right and later wrong (Toneva et al. 2019, arXiv:1812.05159).
    """

    num_samples_seen: int
    margin_mean_quantiles: list[float | None]
    negative_margin_share: float
    wrong_last_share: float
    loss_last_mean: float | None
    loss_last_median: float | None
    forgotten_share: float

    def as_dict(self) -> dict:
        """Plain values for JSON, None for what is not known."""
        return dict(vars(self))


class SampleHistory:
    """Losses and margins of every training sample. A step costs a few references; the work waits until it is asked for.

    With augmentation they are those of the augmented sample. With mixup the label is the sample's own.

    Args:
        labels_N: class indices of the training split, int64, on the CPU.
    """

    def __init__(self, labels_N: Tensor) -> None:
        self._labels_N = labels_N.numpy()
        self._totals = SampleTotals(np.zeros((6, len(labels_N)), dtype=np.float32))
        self._epoch = _Epoch(self._labels_N)

    @property
    def totals(self) -> SampleTotals:
        """Of all closed epochs. Later ones do not change it."""
        return self._totals

    def add(self, indices_B: Tensor, losses_B: Tensor, logits_BC: Tensor) -> None:
        """Take in a batch that was trained on; the tensors must not be written to afterwards.

        Args:
            indices_B: sample numbers, int64, on the CPU.
            losses_B, logits_BC: of any floating type, on one device.
        """
        epoch = self._epoch
        epoch.waiting.append((indices_B, losses_B.detach(), logits_BC.detach()))
        if len(epoch.waiting) >= epoch.look_again_at:
            epoch.make_room()

    def forget_epoch(self) -> None:
        """Drop what the current epoch has brought, to begin it anew."""
        self._epoch = _Epoch(self._labels_N)

    def close_epoch(self, sum_over_processes: Callable[[Tensor], Tensor] | None = None) -> None:
        """Add the epoch to the totals.

        Args:
            sum_over_processes: the elementwise sum of a tensor on the CPU over all processes, where several train:
                each sample was trained on by one of them. That is waited for.
        """
        epoch = self._epoch
        if sum_over_processes is not None:
            epoch = _Epoch(self._labels_N, sum_over_processes(torch.from_numpy(epoch.rows().copy())).numpy())
        self._totals = self._totals.with_epoch(epoch)
        if sum_over_processes is not None:
            self._totals.rows()  # most of the work is done, and most processes never ask
        self.forget_epoch()

    def write(self, path: str | Path) -> None:
        """Write an ``.npz`` in one step, the same bytes for the same history; NaN for samples never trained on.

        Arrays (N,): ``epochs`` and ``forgotten`` (int32, numbers of epochs and of forgetting events), and
        ``loss_mean``, ``margin_mean``, ``loss_last``, ``margin_last`` (float32).
        """
        rows = self._totals.rows()
        values = np.where(rows[_EPOCHS] > 0, rows, np.float32(np.nan))
        buffer = io.BytesIO()
        np.savez(
            buffer,
            epochs=rows[_EPOCHS].astype(np.int32),
            forgotten=rows[_FORGOTTEN].astype(np.int32),
            loss_mean=values[_LOSS_MEAN],
            margin_mean=values[_MARGIN_MEAN],
            loss_last=values[_LOSS_LAST],
            margin_last=values[_MARGIN_LAST],
        )
        atomic.write_bytes(path, buffer.getvalue())

    def state_dict(self, sum_over_processes: Callable[[Tensor], Tensor] | None = None) -> dict[str, Any]:
        """Everything to go on from, also in the middle of an epoch: ``totals_RN``, and ``epoch_RN`` or None.

        The tensors are not changed later, nor should they be by others.
        """
        return self.late_state_dict(sum_over_processes)()

    def late_state_dict(self, sum_over_processes: Callable[[Tensor], Tensor] | None = None) -> Late[dict[str, Any]]:
        """``state_dict`` of this instant, with the work on closed epochs left until it is asked for."""
        totals, epoch_RN = self._totals, None
        if sum_over_processes is not None:
            epoch_RN = sum_over_processes(torch.from_numpy(self._epoch.rows().copy()))
        elif not self._epoch.is_empty:
            epoch_RN = torch.from_numpy(self._epoch.rows().copy())
        if epoch_RN is not None and not epoch_RN[_SEEN].any():
            epoch_RN = None
        return Late(lambda: {"totals_RN": torch.from_numpy(totals.rows()), "epoch_RN": epoch_RN})

    def load_state_dict(self, state: Mapping[str, Any], *, is_main: bool = True) -> None:
        """Go on from a saved state. Of several processes one, ``is_main``, takes over what the epoch has brought.

        Raises:
            ValueError: it is of another number of samples.
        """
        totals_RN, num_samples = state["totals_RN"], len(self._labels_N)
        if totals_RN.shape != (6, num_samples):
            raise ValueError(f"a history of {totals_RN.shape[1]} samples, not of {num_samples}")
        self.forget_epoch()
        self._totals = SampleTotals(totals_RN.cpu().numpy().copy())
        if is_main and state["epoch_RN"] is not None:
            self._epoch = _Epoch(self._labels_N, state["epoch_RN"].cpu().numpy().copy())


class SampleTotals:
    """Of each sample over the closed epochs: (6, N) numbers, worked out when they are asked for. Made by SampleHistory.

    Each closed epoch makes a new one that refers to the one before until then.
    """

    def __init__(self, rows_RN: np.ndarray | None = None) -> None:
        self._rows_RN = rows_RN
        self._before: SampleTotals | None = None
        self._epoch: _Epoch | None = None
        self._num_waiting_values = 0

    def with_epoch(self, epoch: _Epoch) -> SampleTotals:
        """These totals with one more epoch in them."""
        totals = SampleTotals()
        totals._before, totals._epoch = self, epoch
        totals._num_waiting_values = self._num_waiting_values + epoch.num_values
        if totals._num_waiting_values >= _MAX_WAITING_VALUES:
            totals.rows()
        return totals

    def rows(self) -> np.ndarray:
        """The numbers, float32 (6, N), not to be written to. Waits for the device."""
        late, totals = [], self
        while totals._rows_RN is None:
            late.append(totals)
            totals = totals._before
        for totals in reversed(late):  # without recursion: there may be many
            totals._rows_RN = _with_epoch(totals._before._rows_RN, totals._epoch.rows())
            totals._before, totals._epoch, totals._num_waiting_values = None, None, 0
        return self._rows_RN

    def signals(self) -> SampleSignals | None:
        """None where no sample was trained on."""
        rows = self.rows()
        if not rows[_EPOCHS].all():
            rows = rows[:, rows[_EPOCHS] > 0]
        num_seen = rows.shape[1]
        if num_seen == 0:
            return None
        sorted_margins, sorted_losses = np.sort(rows[_MARGIN_MEAN]), np.sort(rows[_LOSS_LAST])
        return SampleSignals(
            num_samples_seen=num_seen,
            margin_mean_quantiles=[finite(sorted_margins[round(q * (num_seen - 1))]) for q in QUANTILES],
            negative_margin_share=np.count_nonzero(rows[_MARGIN_MEAN] < 0) / num_seen,
            wrong_last_share=np.count_nonzero(rows[_MARGIN_LAST] < 0) / num_seen,
            loss_last_mean=finite(np.add.reduce(rows[_LOSS_LAST], dtype=np.float64) / num_seen),
            loss_last_median=finite(sorted_losses[num_seen // 2]),
            forgotten_share=np.count_nonzero(rows[_FORGOTTEN]) / num_seen,
        )


class _Epoch:
    """What the batches of an epoch have brought: those that wait to be worked on, and the (3, N) numbers of the rest.

    On the CPU in NumPy, whose small operations cost less.
    """

    def __init__(self, labels_N: np.ndarray, rows_RN: np.ndarray | None = None) -> None:
        self._labels_N = labels_N
        self._rows_RN = rows_RN
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        # So many batches may wait before ``make_room`` is to be called; it finds out how large they are.
        self.look_again_at = 1

    @property
    def is_empty(self) -> bool:
        return self._rows_RN is None and not self.waiting

    @property
    def num_values(self) -> int:
        """Logits that wait, or a few more."""
        return len(self.waiting) * max(self._size(0), self._size(-1)) if self.waiting else 0

    def make_room(self) -> None:
        """Work on what waits where that is much."""
        if self.num_values >= _MAX_WAITING_VALUES or len(self.waiting) >= _MAX_WAITING_BATCHES:
            self._reduce()
        # Before there are twice as many: the next ones may be larger.
        self.look_again_at = max(min(2 * len(self.waiting), _MAX_WAITING_BATCHES), 1)

    def _size(self, batch: int) -> int:
        return self.waiting[batch][2].numel()

    def rows(self) -> np.ndarray:
        """Seen, loss and margin of each sample, float32 (3, N), 0 where it was not trained on. Waits for the device."""
        if self._rows_RN is None:
            self._rows_RN = np.zeros((3, len(self._labels_N)), dtype=np.float32)
        self._reduce()
        return self._rows_RN

    @torch.no_grad()
    def _reduce(self) -> None:
        if not self.waiting:
            return
        if self._rows_RN is None:
            self._rows_RN = np.zeros((3, len(self._labels_N)), dtype=np.float32)
        indices_B, losses_B, logits_BC = map(torch.cat, zip(*self.waiting, strict=True))
        rows = indices_B.numpy()
        labels_B = self._labels_N[rows]
        if logits_BC.device.type == "cpu":
            margins_B = margins(logits_BC.float().numpy(), labels_B)
        else:
            margins_B = device_margins(logits_BC, torch.from_numpy(labels_B)).cpu().numpy()
        self._rows_RN[_SEEN][rows] = 1.0
        self._rows_RN[_LOSS][rows] = losses_B.float().cpu().numpy()
        self._rows_RN[_MARGIN][rows] = margins_B
        self.waiting = []  # last: where memory ran out on the way, it can be done again


def _with_epoch(before: np.ndarray, brought: np.ndarray) -> np.ndarray:
    """Totals (6, N) and what an epoch has brought (3, N), to the totals after it."""
    after = np.empty_like(before)
    np.add(before[_EPOCHS], 1, out=after[_EPOCHS])
    # Each operation on the losses and the margins at once; there are few numbers, so that the calls count.
    means_2N = np.subtract(brought[_LOSS:], before[_MEANS], out=after[_MEANS])
    means_2N /= after[_EPOCHS]
    means_2N += before[_MEANS]
    after[_LAST] = brought[_LOSS:]
    # The last margin of a sample that was never trained on is 0, which does not count as right.
    was_right_N, is_wrong_N = before[_MARGIN_LAST] > 0, brought[_MARGIN] <= 0
    np.add(before[_FORGOTTEN], was_right_N & is_wrong_N, out=after[_FORGOTTEN])
    seen_N = brought[_SEEN]
    return after if seen_N.all() else np.where(seen_N > 0, after, before)


def margins(logits_BC: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    """The logit of the label minus the largest other, float32 (B,). Overwrites ``logits_BC``, float32.

    In NumPy, whose calls cost less: with some thousand logits an epoch that is all there is to pay for.
    """
    num_samples, num_classes = logits_BC.shape
    flat, own = logits_BC.reshape(-1), np.arange(num_samples) * num_classes + labels_B
    own_logits_B = flat[own]
    flat[own] = -np.inf
    # Of few classes, the maximum over the first axis is many times faster.
    return own_logits_B - np.ascontiguousarray(logits_BC.T).max(axis=0)


def device_margins(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """The same where the logits are, so that one number a sample has to be brought over."""
    logits_BC, label_B1 = logits_BC.float(), labels_B.to(logits_BC.device)[:, None]
    others_BC = logits_BC.scatter(1, label_B1, -torch.inf)
    return logits_BC.gather(1, label_B1)[:, 0] - others_BC.amax(dim=1)
