"""What a search costs on top of its trainings, and what Ray Tune needs for the same ones.

    python -m benchmarks.search.speed --epochs 20 --two --repeat 3
    pip install "ray[tune]" && python -m benchmarks.search.speed --epochs 20 --ray

20 random trials of the documented space on digits, as ``configs/training_config.yaml`` trains them, without
confirmation. These times are measured, each in a process of its own:

- *plain loop*: the engine's own ``train`` for the 20 configurations one after another in one process, on data that is
  loaded once. This is the pure training time: no ledger, no proposals, no files but those of the runs.
- *search*: the whole command ``hyperparam_search.py``, with one worker (``--two``: and with two), from its start to its
  end with all results and pictures; and its trials: from where the study is open, over starting workers, to where the
  last trial is written down.
- *Ray Tune* (``--ray``): ``Tuner.fit`` with its defaults, the same training function for the same 20 configurations. It
  runs as many trials at the same time as there are processors, each in a process of its own. Starting Ray is not
  counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG, SPACE = ROOT / "configs/training_config.yaml", ROOT / "configs/search_space.yaml"
NUM_TRIALS = 20


def overrides(epochs: int) -> list[str]:
    return ["training.device=cpu", f"training.epochs={epochs}"]


def run_search(output: Path, epochs: int, jobs: int) -> dict[str, float]:
    """The whole command; its time, that of its trials, and the sum of what the trainings took, in seconds."""
    changes = [word for override in overrides(epochs) for word in ("--set", override)]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, ROOT / "hyperparam_search.py", "--config", CONFIG, "--search-space", SPACE, "--n-trials",
         str(NUM_TRIALS), "--confirm", "0", "--jobs", str(jobs), "--output", output, "--quiet", *changes],
        check=True, stdout=subprocess.DEVNULL, cwd=output.parent,
    )  # fmt: skip
    command_s = time.perf_counter() - began
    document = json.loads((output / "trials.json").read_text())
    trained_s = sum(trial["duration_s"] for trial in document["trials"])
    return {"command_s": command_s, "trials_s": document["study"]["elapsed_s"], "trained_s": trained_s}


def configurations(output: Path) -> list[dict[str, Any]]:
    """What the trials of a search tried."""
    return [trial["params"] for trial in json.loads((output / "trials.json").read_text())["trials"]]


def new_trainer(epochs: int) -> Any:
    """A function that trains one configuration in a folder and returns its accuracy; data and torch are loaded once."""
    from common.config import LoadedConfig, load_config
    from common.console import Console
    from common.engine.assembly import load_data
    from common.engine.run import train
    from common.engine.session import RunRequest
    from common.environment import describe_machine
    from common.search.space import configured
    from common.search.training import TRIAL_SETTINGS
    from common.signals import StopSignals

    fixed = [f"{section}.{key}={json.dumps(value)}" for section, values in TRIAL_SETTINGS.items()
             for key, value in values.items() if not isinstance(value, dict)]  # fmt: skip
    base = load_config(CONFIG, overrides=[*overrides(epochs), *fixed])
    dataset, machine = load_data(base.config, write_files=False), describe_machine("cpu")

    def run(params: Mapping[str, Any], folder: Path) -> float:
        loaded = LoadedConfig(configured(base.config, params), [], CONFIG)
        request = RunRequest(loaded, "optimization", folder, [], publish=False, dataset=dataset, machine=machine,
                             reports=False)  # fmt: skip
        return train(request, Console(quiet=True), StopSignals())["best"]["val_acc"]

    return run


def plain_loop(folder: Path, found: Path, epochs: int) -> float:
    """Seconds of training the same configurations one after another, without the search."""
    run = new_trainer(epochs)
    trials = configurations(found)
    began = time.perf_counter()
    for number, params in enumerate(trials):
        run(params, folder / str(number))
    return time.perf_counter() - began


def ray_tune(folder: Path, found: Path, epochs: int) -> float:
    """Seconds that Ray Tune takes for the same configurations with its defaults."""
    import ray
    from ray import tune

    trials = configurations(found)

    def trainable(config: Mapping[str, Any]) -> dict[str, float]:
        sys.path.insert(0, str(ROOT))
        from benchmarks.search.speed import new_trainer

        number = config["number"]
        return {"val_acc": new_trainer(epochs)(trials[number], folder / str(number))}

    ray.init(logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}})
    began = time.perf_counter()
    tuner = tune.Tuner(trainable, param_space={"number": tune.grid_search(list(range(NUM_TRIALS)))},
                       tune_config=tune.TuneConfig(metric="val_acc", mode="max"),
                       run_config=tune.RunConfig(storage_path=str(folder), verbose=0))  # fmt: skip
    results = tuner.fit()
    took = time.perf_counter() - began
    assert not results.errors, results.errors
    ray.shutdown()
    return took


def measured(name: str, folder: Path, found: Path, epochs: int) -> float:
    """One of the other measurements, in a process of its own."""
    folder.mkdir()
    words = [sys.executable, "-m", "benchmarks.search.speed", "--only", name, "--epochs", str(epochs),
             "--folder", folder, "--found", found]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Measure in turn, so that a machine that is slow for a while is so for both sides, and print all of it."""
    found = folder / "one 0"
    for number in range(args.repeat):
        one = run_search(folder / f"one {number}", args.epochs, 1)
        loop = measured("plain_loop", folder / f"loop {number}", found, args.epochs)
        print(f"plain loop: {loop:.1f} s; sum of the trainings within the search: {one['trained_s']:.1f} s")
        show("search, --jobs 1", one, loop)
        if args.two:
            show("search, --jobs 2", run_search(folder / f"two {number}", args.epochs, 2), loop)
        if args.ray:
            ray_s = measured("ray_tune", folder / f"ray {number}", found, args.epochs)
            print(f"Ray Tune: {ray_s:.1f} s; the search takes {one['command_s'] / ray_s:.3f} of it with one worker",
                  flush=True)  # fmt: skip


def show(name: str, times: Mapping[str, float], loop_s: float) -> None:
    print(f"{name}: trials {times['trials_s']:.1f} s ({times['trials_s'] / loop_s:.3f} of the loop), whole command "
          f"{times['command_s']:.1f} s ({times['command_s'] / loop_s:.3f})", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=1, help="so often, one after the other")
    parser.add_argument("--two", action="store_true", help="two workers too")
    parser.add_argument("--ray", action="store_true", help="Ray Tune too")
    parser.add_argument("--only", choices=("plain_loop", "ray_tune"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.only:
        print({"plain_loop": plain_loop, "ray_tune": ray_tune}[args.only](args.folder, args.found, args.epochs))
        return 0
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
