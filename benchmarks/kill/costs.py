"""Whether damage is found, how long saving and going on take, and what being safe costs in speed."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from benchmarks.kill.cases import CASES
from benchmarks.kill.turns import train_in_turns
from benchmarks.train_throughput import write_images
from common import manifest, markdown
from common.checkpoint_container import verify
from common.checkpoints import CheckpointStore, load_checkpoint, to_bytes
from common.config import load_config
from common.console import Console, format_bytes
from common.engine.run import train
from common.engine.session import RunRequest
from common.models import build_model
from common.signals import StopSignals

# The default is a second; where two trainings take turns, half of two seconds is the other one's.
_USUAL = ("checkpointing.checkpoint_every_n_epochs=null", "checkpointing.min_seconds_between_saves=2.0")
# Epochs of a tenth of a second, where the price is highest, and of several seconds.
SPEED_CASES = {
    "digits, simple_cnn, 20 epochs": ("training.epochs=20", *_USUAL),
    "the same, saving after every epoch": (
        "training.epochs=20", *_USUAL, "checkpointing.min_seconds_between_saves=0",
    ),
    "3,840 images of 3x32x32, a ResNet-18 of a quarter of the width, 2 epochs": (
        "training.epochs=2", *_USUAL, "training.batch_size=128",
        "model.architecture=resnet18", "model.hidden_dims=[16, 32, 64, 128]", "data.source=npz",
        "data.root=images.npz", "training.channels_last=true",
    ),
}  # fmt: skip
UNSAFE = ("checkpointing.save_last=false", "checkpointing.save_best=false")


def report(folder: Path, *, flips: int, rounds: int) -> None:
    """Measure all of it in ``folder`` and print it in Markdown."""
    folder.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        checkpoints = _train("cnn", "safe", ["training.epochs=2", "checkpointing.checkpoint_every_n_epochs=1"])
        print(f"\n{damage_table(checkpoints / 'checkpoints', flips)}")
        print(f"\n{time_table(rounds)}")
        write_images(Path("images.npz"))
        for name, overrides in SPEED_CASES.items():
            print(f"\n{name}: {speed_words(overrides, rounds)}")
    finally:
        os.chdir(before)


# Damage


def damage_table(folder: Path, flips: int) -> str:
    """How many of so many changed bytes in each checkpoint are found, with the manifest and by the file alone."""
    rows = []
    for path in manifest.checkpoint_files(folder):
        found = _flips_found(path, manifest.manifest_entry(path), flips)
        rows.append([path.name, format_bytes(path.stat().st_size), *(f"{count:,} of {flips:,}" for count in found)])
    return markdown.table(["Checkpoint", "Size", "Changed bytes found", "without the manifest"], rows)


def _flips_found(path: Path, entry: manifest.ManifestEntry | None, flips: int) -> tuple[int, int]:
    copy = path.with_name("copy.tmp")
    shutil.copy(path, copy)
    rng = random.Random(0)
    known = alone = 0
    with copy.open("r+b", buffering=0) as file:
        for _ in range(flips):
            offset = rng.randrange(copy.stat().st_size)
            byte = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte[0] ^ rng.randrange(1, 256)]), offset)
            known += verify(copy, entry).status == "damaged"
            alone += verify(copy).status == "damaged"
            os.pwrite(file.fileno(), byte, offset)
    assert verify(copy, entry).status == "ok"
    copy.unlink()
    return known, alone


# Time


def time_table(rounds: int) -> str:
    """How long a checkpoint takes to be written safely, and to be checked and loaded, for a small and a large model."""
    rows = [_times("simple_cnn", (1, 8, 8), rounds), _times("resnet18", (3, 64, 64), rounds)]
    return markdown.table(["Model with Adam's state", "Checkpoint", "Serialise", "Save", "Check and load"], rows)


def _times(architecture: str, input_shape: tuple[int, ...], rounds: int) -> list[str]:
    model = build_model(architecture, input_shape=input_shape, num_classes=1000, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, *input_shape)).sum().backward()
    optimizer.step()
    state = {"schema_version": 1, "epoch": 1, "step": 1, "model_state_dict": model.state_dict(),
             "optimizer_state_dict": optimizer.state_dict(), "model_spec": {}}  # fmt: skip
    store = CheckpointStore(Path(f"{architecture}_checkpoints"))
    content = to_bytes(state)

    def save() -> None:
        store.save(["last_model.pt"], content, epoch=1, step=1)

    def go_on() -> None:
        store.set_aside_damaged()
        load_checkpoint(store.folder / "last_model.pt")

    times = [_median_ms(what, rounds) for what in (lambda: to_bytes(state), save, go_on)]
    return [architecture, format_bytes(len(content)), *(f"{time_ms:.1f} ms" for time_ms in times)]


def _median_ms(what: Callable[[], object], rounds: int) -> float:
    times_s = []
    for _ in range(rounds):
        started = time.perf_counter()
        what()
        times_s.append(time.perf_counter() - started)
    return 1000 * statistics.median(times_s)


# Speed


def speed_words(overrides: Sequence[str], rounds: int) -> str:
    """Training time without checkpoints against with them, in turns epoch by epoch, each as often the first."""
    without_any, with_both = [], []
    for number in range(rounds):
        requests = [_request("cnn", f"{kind}{number}", [*overrides, *more])
                    for kind, more in (("without", UNSAFE), ("with", ()))]  # fmt: skip
        order = 1 if number % 2 else -1
        one, other = train_in_turns(requests[::order])[::order]
        without_any.append(one)
        with_both.append(other)
        for request in requests:
            shutil.rmtree(request.output_dir)
    pairs = list(zip(without_any, with_both, strict=True))
    return (
        f"{statistics.median(loop.clock_s for loop in without_any):.2f} s without a last and a best checkpoint; speed "
        f"with them {_ratio_words([a.clock_s / b.clock_s for a, b in pairs])} by the clock, "
        f"{_ratio_words([a.processor_s / b.processor_s for a, b in pairs])} by processor time, {rounds} rounds"
    )


def _ratio_words(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} and {high:.3f}, from {min(ratios):.3f} to {max(ratios):.3f})"


def _train(case: str, name: str, overrides: list[str]) -> Path:
    """Train a case in this process into the folder ``name``."""
    with StopSignals() as stop:
        train(_request(case, name, overrides), Console(quiet=True), stop)
    return Path(name)


def _request(case: str, name: str, overrides: list[str]) -> RunRequest:
    config = Path("config.yaml")
    config.write_text(yaml.safe_dump(CASES[case].config), encoding="utf-8")
    loaded = load_config(config, mode=CASES[case].mode, overrides=overrides)
    return RunRequest(loaded, CASES[case].mode, Path(name), ["benchmark"], publish=False)
