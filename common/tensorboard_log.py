"""TensorBoard event files, written without TensorBoard's own writer.

``torch.utils.tensorboard`` takes 1.4 s to import and TensorBoard's record writer 0.3 s (2-core machine, warm disk);
the messages alone take 0.04 s. So the messages are TensorBoard's, and the framing around them, stable since 2015, is
done here.
"""

from __future__ import annotations

import math
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

# What stands side by side on one card; every other number of an epoch goes to the group "other".
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_acc": "accuracy_pct/train",
    "val_acc": "accuracy_pct/val",
    "val_f1": "macro/val_f1",
    "val_precision": "macro/val_precision",
    "val_recall": "macro/val_recall",
    "lr": "optimizer/learning_rate",
    "time_s": "speed/epoch_s",
    "data_time_s": "speed/data_s",
    "samples_per_s": "speed/samples_per_s",
    "gpu_util": "device/gpu_util_pct",
    "gpu_mem_gb": "device/gpu_mem_gb",
    "cpu_util": "device/cpu_util_pct",
}
NESTED_GROUPS = ("grad_norm", "health")
NOT_PLOTTED = ("num",)
FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")
CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reversed
CRC_MASK_DELTA = 0xA282EAD8


class TensorBoardLog:
    """One event file in ``folder``, to which each epoch is appended at once.

    Args:
        folder: created where missing. Event files in it are left alone and belong to the same run.
        resume_after_epoch: the last epoch that counts when a run is resumed: TensorBoard then forgets what older
            files in the folder say about later ones. None for a new run.
    Raises:
        OSError: the folder or file cannot be written.
    """

    def __init__(self, folder: str | Path, *, resume_after_epoch: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._messages = event_pb2
        self._summaries = summary_pb2
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(folder / _next_file_name(folder), "ab")  # noqa: SIM115 - closed by close()
        self._append(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_after_epoch is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._append(event_pb2.Event(wall_time=time.time(), step=resume_after_epoch + 1, session_log=start))

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_epoch(self, epoch_record: Mapping[str, Any]) -> None:
        """Append the numbers of one object of ``epochs`` in metrics.json; its ``num`` is the step.

        Texts and nulls (not measured, or not finite) are left out.
        """
        summary = self._summaries.Summary()
        for tag, value in _scalars(epoch_record):
            summary.value.add(tag=tag, simple_value=value)
        self._append(self._messages.Event(wall_time=time.time(), step=epoch_record["num"], summary=summary))

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def _append(self, event: Any) -> None:
        self._file.write(_record(event.SerializeToString()))
        self._file.flush()


def _scalars(epoch_record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in epoch_record.items():
        if key in NESTED_GROUPS and isinstance(value, Mapping):
            for path, number in _numbers(value):
                yield f"{key}/{path}", number
        elif key not in NOT_PLOTTED:
            for path, number in _numbers({key: value}):
                yield TAGS.get(path, f"other/{path}"), number


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Path and value of every finite number in a tree of mappings; truth values are no numbers."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            for path, number in _numbers(value):
                yield f"{key}/{path}", number
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def _next_file_name(folder: Path) -> str:
    # TensorBoard reads a run's files in the order of their names, so a later file needs a later number, also within
    # the same second or after the clock was set back.
    taken = [int(match[1]) for name in os.listdir(folder) if (match := FILE_NAME.match(name))]
    return f"events.out.tfevents.{max(int(time.time()), *(number + 1 for number in taken), 0):010d}.trainer"


def _record(content: bytes) -> bytes:
    """Frame one message as TFRecord: length, its checksum, content, its checksum, all little-endian.

    Source: tensorflow/core/lib/io/record_writer.h.
    """
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", _masked_crc(length)) + content + struct.pack("<I", _masked_crc(content))


def _masked_crc(content: bytes) -> int:
    crc = _crc32c(content)
    return ((crc >> 15 | crc << 17) + CRC_MASK_DELTA) & 0xFFFFFFFF


def _crc32c(content: bytes) -> int:
    """CRC-32C. Source: RFC 3720, appendix B.4."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    def entry(crc: int) -> int:
        for _bit in range(8):
            crc = crc >> 1 ^ (CRC32C_POLYNOMIAL if crc & 1 else 0)
        return crc

    return tuple(entry(byte) for byte in range(256))
