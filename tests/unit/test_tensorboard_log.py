"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from common import tensorboard_log
from common.tensorboard_log import TensorBoardLog

ROOT = Path(__file__).resolve().parents[2]
EPOCH = {
    "num": 1,
    "train_loss": 1.5,
    "val_loss": 1.25,
    "train_acc": 50.0,
    "val_acc": 75.0,
    "val_f1": 0.5,
    "lr": 0.125,
    "gpu_util": None,
    "time_s": 2,
    "grad_norm": {"median": 0.5, "max": 4.0},
    "health": {"dead_units": {"layer1": 0.25}, "note": "text", "ok": True},
    "val_top5": 99.0,
    "weights_sha256": "ab" * 32,
}


def add(log: TensorBoardLog, record: dict) -> None:
    log.add_epochs([(record, 1.0)])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_every_number_of_an_epoch(tmp_path):
    with TensorBoardLog(tmp_path / "tensorboard") as log:
        add(log, EPOCH)
        add(log, {"num": 2, "train_loss": 0.5})
    assert scalars(tmp_path / "tensorboard") == {
        "loss/train": [(1, 1.5), (2, 0.5)],
        "loss/val": [(1, 1.25)],
        "accuracy_pct/train": [(1, 50.0)],
        "accuracy_pct/val": [(1, 75.0)],
        "macro/val_f1": [(1, 0.5)],
        "optimizer/learning_rate": [(1, 0.125)],
        "speed/epoch_s": [(1, 2.0)],
        "grad_norm/median": [(1, 0.5)],
        "grad_norm/max": [(1, 4.0)],
        "health/dead_units/layer1": [(1, 0.25)],
        "other/val_top5": [(1, 99.0)],
    }


def test_what_is_not_finite_or_too_large_is_left_out(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        add(log, {"num": 1, "train_loss": float("nan"), "val_loss": float("inf"), "lr": 1e39, "val_acc": 10.0})
    assert scalars(tmp_path) == {"accuracy_pct/val": [(1, 10.0)]}


def test_an_epoch_can_be_read_while_the_log_is_open(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        add(log, {"num": 1, "train_loss": 2.0})
        assert scalars(tmp_path) == {"loss/train": [(1, 2.0)]}


def test_a_resumed_run_forgets_the_epochs_after_its_checkpoint(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        for num in range(1, 6):
            add(log, {"num": num, "train_loss": float(num), "val_acc": 1.0})
    with TensorBoardLog(tmp_path, resume_after_epoch=3) as log:
        add(log, {"num": 4, "train_loss": 40.0})
    assert scalars(tmp_path) == {
        "loss/train": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)],
        "accuracy_pct/val": [(1, 1.0), (2, 1.0), (3, 1.0)],
    }


def test_a_file_torn_by_a_power_cut_does_not_harm_the_resumed_run(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        for num in (1, 2, 3):
            add(log, {"num": num, "train_loss": float(num)})
    (torn,) = tmp_path.iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])
    with TensorBoardLog(tmp_path, resume_after_epoch=2) as log:
        add(log, {"num": 3, "train_loss": 30.0})
    assert scalars(tmp_path) == {"loss/train": [(1, 1.0), (2, 2.0), (3, 30.0)]}


def test_later_files_sort_after_earlier_ones_also_when_the_clock_went_back(tmp_path, monkeypatch):
    names = []
    for now_s in (1_000_000.0, 1_000_000.0, 999_000.0, 2_000_000.0):
        monkeypatch.setattr(tensorboard_log.time, "time", lambda now_s=now_s: now_s)
        TensorBoardLog(tmp_path).close()
        names.append(max(path.name for path in tmp_path.iterdir()))
    assert names == [f"events.out.tfevents.{n:010d}.trainer" for n in (1_000_000, 1_000_001, 1_000_002, 2_000_000)]


def test_the_file_says_its_version_first(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        add(log, {"num": 7, "train_loss": 1.0})
    (path,) = tmp_path.iterdir()
    first, second = EventFileLoader(str(path)).Load()
    assert first.file_version == "brain.Event:2"
    assert second.step == 7


def test_the_checksum_is_crc32c():
    # The standard's own check value, and its example of 32 zero bytes (RFC 3720, B.4).
    assert tensorboard_log._crc32c(b"123456789") == 0xE3069283
    assert tensorboard_log._crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("length", [4, 8, 60, 63, 64, 65, 127, 128, 129, 3000])
def test_whatever_the_length_it_is_that_of_the_bytes_one_by_one(length):
    content, crc = bytes(range(256)) * 12, 0xFFFFFFFF
    for byte in content[:length]:
        crc ^= byte
        for _bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert tensorboard_log._crc32c(content[:length]) == crc ^ 0xFFFFFFFF


def test_epochs_keep_the_time_at_which_they_ended(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        log.add_epochs([({"num": 1, "lr": 1.0}, 1000.5), ({"num": 2, "lr": 1.0}, 1001.25)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.wall_time for event in events.Scalars("optimizer/learning_rate")] == [1000.5, 1001.25]


def test_what_could_not_be_written_whole_is_not_there(tmp_path):
    """A file that may not grow takes a part of the events: that part goes, and they can be written later."""
    code = (
        "import resource, signal, sys; from common.tensorboard_log import TensorBoardLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "records = [({'num': num, 'lr': 0.5}, 1.0) for num in range(1, 4)]\n"
        "with TensorBoardLog(sys.argv[1]) as log:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))\n"
        "    try: log.add_epochs(records)\n"
        "    except OSError: pass\n"
        "    else: raise AssertionError('it fitted')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    log.add_epochs(records)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], cwd=ROOT, check=True)
    assert scalars(tmp_path / "log") == {"optimizer/learning_rate": [(1, 0.5), (2, 0.5), (3, 0.5)]}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        TensorBoardLog(tmp_path / "file" / "tensorboard")


def test_writing_imports_neither_torch_nor_tensorboards_writer(tmp_path):
    code = (
        "import sys; from common.tensorboard_log import TensorBoardLog\n"
        "with TensorBoardLog(sys.argv[1]) as log: log.add_epochs([({'num': 1, 'lr': 0.1}, 1.0)])\n"
        "assert not {'torch', 'tensorboard.summary.writer.record_writer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], cwd=ROOT, check=True)
