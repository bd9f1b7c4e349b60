"""compare_results.py as its users see it: the documented command, every way to name runs, codes, files, JSON."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

import compare_results
from tests.comparison_runs import write_run, write_seeds
from tests.training_runs import train


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return compare_results.main([str(argument) for argument in arguments])


@pytest.fixture
def seeds(here):
    write_seeds(here / "a", [180, 182, 181])
    write_seeds(here / "b", [190, 191, 192], mode="optimization")
    return ("--baseline", "a", "--optimized", "b")


def test_the_documented_command(here, capsys):
    write_run(here / "results/baseline", num_right=180)
    write_run(here / "results/optimization", num_right=192, mode="optimization")
    code = call("--baseline", "results/baseline/metrics.json", "--optimized", "results/optimization/metrics.json",
                "--output", "comparison.md")  # fmt: skip
    assert code == 0
    output = capsys.readouterr().out
    assert "Absolute improvement: +6.00 points\nRelative improvement: +6.67%\nTrain-val gap" in output
    text = (here / "comparison.md").read_text()
    assert text.startswith("# Comparison: digits\n\n**Not enough evidence** about the configurations")
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert picture == "comparison.png"
    with Image.open(here / picture) as image:
        assert image.format == "PNG"


def test_a_report_elsewhere_has_its_picture_beside_it(seeds, here):
    assert call(*seeds, "--output", "reports/new/my report.md") == 0
    assert (here / "reports/new/my report.png").is_file()
    assert "(my%20report.png)" in (here / "reports/new/my report.md").read_text()


def test_seeds_are_matched_and_the_verdict_stands_at_the_top(seeds, here, capsys):
    assert call(*seeds) == 0
    assert capsys.readouterr().out.startswith("Better: validation accuracy goes from 90.50% to 95.50%, +5.00 points")
    text = (here / "comparison.md").read_text()
    assert text.splitlines()[2].startswith("**Better**: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Metrics at the best epoch", "Metrics at the final epoch", "Learning curves", "Significance", "Cost", "Runs",
    ]  # fmt: skip


def test_runs_listed_one_by_one_and_by_patterns(seeds, here, capsys):
    assert call("--baseline", "a/seed_42", "a/seed_43/metrics.json", "--baseline", "a/seed_44",
                "--optimized", "b/seed_4*", "--json") == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "better"
    assert document["assessment"]["paired"] is True


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ((), 0),
        (("--fail-unless-better",), 0),
        (("--fail-unless-better", "--margin", "8"), 1),
        (("--fail-unless-better", "--metric", "val_loss"), 0),
    ],
)
def test_exit_codes_for_continuous_integration(seeds, flags, code):
    assert call(*seeds, "--quiet", *flags) == code


def test_not_better_is_code_1_only_when_asked(seeds, here):
    backwards = ("--baseline", "b", "--optimized", "a")
    assert call(*backwards) == 0
    assert call(*backwards, "--fail-unless-better") == 1
    one = ("--baseline", "a/seed_42", "--optimized", "b/seed_42")
    assert call(*one, "--fail-unless-better") == 1


def test_what_cannot_be_compared_is_not_better(here, capsys):
    write_seeds(here / "a", [180, 182, 181])
    write_seeds(here / "b", [190, 191, 192], dataset={"fingerprint": "f" * 64})
    assert call("--baseline", "a", "--optimized", "b", "--fail-unless-better") == 1
    assert capsys.readouterr().out.startswith("Not comparable: the data differ")
    assert (here / "comparison.md").read_text().splitlines()[2] == "These runs are not comparable:"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--baseline", "a", "--optimized", "nothing"), 3, "nothing: there is no such file"),
        (("--baseline", "a", "--optimized", "empty"), 3, "empty: --optimized: is not a run folder"),
        (("--baseline", "a", "--optimized", "failed"), 3, "there is no val_acc of a best epoch in it (status: failed)"),
        (("--baseline", "a", "--optimized", "b", "--output", "x.png"), 2, "x.png: --output: is the name of a picture"),
        (("--baseline", "a", "--optimized", "b", "--output", "a"), 2, "a: --output: is a folder"),
        (("--baseline", "a", "--optimized", "b", "--output", "file/x.md"), 4, "file/x.md: --output: cannot be written"),
    ],
)
def test_errors_are_one_sentence(seeds, here, capsys, arguments, code, message):
    (here / "empty").mkdir()
    (here / "file").write_text("")
    write_run(here / "failed", status="failed", epochs=[])
    assert call(*arguments) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--metric", "f1"), ("--margin", "0"), ("--margin", "nan"), ("--margin", "x"), ()]
)
def test_wrong_usage_is_code_2(arguments, capsys):
    given = ("--baseline", "a", "--optimized", "b", *arguments) if arguments else ("--baseline", "a")
    with pytest.raises(SystemExit) as end:
        call(*given)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_quiet_prints_results_only(seeds, capsys):
    assert call(*seeds, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.startswith("Better")


def test_json_holds_the_errors_too(here, capsys):
    assert call("--baseline", "nothing", "--optimized", "nothing", "--json") == 3
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 3


def test_real_trainings(here, capsys):
    train("one", training__epochs=2)
    train("two", training__epochs=3, model__dropout=0.3)
    assert call("--baseline", "one", "--optimized", "two", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparable"] is True
    assert document["findings"] == []
    assert document["models"]["num_examples"] == 27
    assert document["verdict"] == "not enough evidence"


def test_a_training_repeated_is_the_same_training(here, capsys):
    train("one", training__epochs=1)
    train("two", training__epochs=1)
    assert call("--baseline", "one", "--optimized", "two") == 0
    assert capsys.readouterr().out.startswith("Equivalent: both sides are the same training, bit by bit.")
