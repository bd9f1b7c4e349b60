"""What the README shows is true: its commands run as typed, and its output is what they print."""

from __future__ import annotations

import re

import pytest

from tests.project_copy import ROOT, copy_project, shell

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.split("\n")
    if line.strip().startswith(("python ", "torchrun "))
]
TEXTS = [block for language, block in BLOCKS if language == "text"]


def masked(text: str) -> str:
    """The text with every number, and the padding before it, replaced by ``#``; which epoch is best depends on them."""
    return re.sub(r" *(\d[\d.,e+-]*|[0-9a-f]{16})", " #", text).replace(" | best so far", "")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What every command printed, run in the README's order with configs of two epochs."""
    project = copy_project(tmp_path_factory.mktemp("clone"))
    for config in (project / "configs").glob("*.yaml"):
        text = re.sub(r"^  epochs: \d+", "  epochs: 2", config.read_text(), flags=re.MULTILINE)
        config.write_text(re.sub(r"^  patience: \d+", "  patience: 1", text, flags=re.MULTILINE))
    results = {}
    for command in COMMANDS:
        done = shell(project, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        results[command] = done.stdout + done.stderr
    return results


def test_there_are_commands_for_every_script():
    assert {f"{path.name}" for path in ROOT.glob("*.py")} == {
        word for command in COMMANDS for word in command.split() if word.endswith(".py")
    }


def test_every_command_runs(outputs):
    assert list(outputs) == COMMANDS


def test_the_training_prints_what_is_shown(outputs):
    shown = next(text for text in TEXTS if text.startswith("$ ")).strip().split("\n")
    printed = {masked(line) for line in outputs[shown[0].removeprefix("$ ")].split("\n")}
    for line in shown[1:]:
        assert line == "..." or masked(line) in printed, line


def epochs_in(lines: list[str]) -> dict[int, list[float]]:
    """By epoch: training loss and accuracy, validation loss and accuracy."""
    found = (re.match(r"Epoch +(\d+)/\d+ \| train +(\S+) +(\S+)% \| val +(\S+) +(\S+)%", line) for line in lines)
    return {int(match[1]): [float(number) for number in match.groups()[1:]] for match in found if match}


def test_the_numbers_are_those_of_the_training_that_is_shown(tmp_path):
    shown = next(text for text in TEXTS if text.startswith("$ ")).strip().split("\n")
    done = shell(copy_project(tmp_path), shown[0].removeprefix("$ "))
    printed = epochs_in((done.stdout + done.stderr).split("\n"))
    for epoch, numbers in epochs_in(shown).items():
        # Another processor rounds otherwise, which is a sample or two by the end.
        for number, again, slack in zip(numbers, printed[epoch], (0.02, 1.2, 0.02, 1.2), strict=True):
            assert again == pytest.approx(number, abs=slack), f"epoch {epoch}"


def test_the_inspector_prints_what_is_shown(outputs):
    shown = next(text for text in TEXTS if text.startswith("Checkpoint:")).strip()
    command = next(command for command in COMMANDS if command.startswith("python checkpoint_inspector.py"))
    assert masked(outputs[command]).startswith(masked(shown))


def test_the_validator_prints_what_is_shown(tmp_path):
    shown = next(text for text in TEXTS if "error[" in text).strip()
    config = (ROOT / "configs/training_config.yaml").read_text()
    (tmp_path / "bad.yaml").write_text(config.replace("  batch_size: 32\n", "  batch_size: 32\n  batchsize: 32\n"))
    printed = shell(tmp_path, f"python {ROOT}/config_validator.py --config bad.yaml || true").stdout
    assert masked(printed).startswith(masked(shown))


def test_the_picture_is_there():
    for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
