"""Architectures by import path: what they are given and what is checked of what they return."""

from __future__ import annotations

import sys

import pytest
import torch

from common.exits import UsageError
from common.models import build_model

SOURCE = """
import torch
from torch import nn

calls = []

def build(input_shape, num_classes, dropout, width=3):
    calls.append((input_shape, num_classes, dropout, width))
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), width), nn.Dropout(dropout),
                         nn.Linear(width, num_classes))

def only_classes(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def anything(**arguments):
    calls.append(arguments)
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(arguments["num_classes"]))

def no_classes(input_shape):
    return nn.Flatten()

def no_module(num_classes):
    return "net"

def wrong_output(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes + 1))

def no_tensor(num_classes):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def builder_fails(num_classes):
    raise RuntimeError("no such thing")

def forward_fails(num_classes):
    return nn.Linear(999, num_classes)

def draws(num_classes):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, num_classes)
        def forward(self, x):
            return self.head(x + torch.randn_like(x))
    return Noisy()
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "plugged_nets.py").write_text(SOURCE)

    def build(name: str, **arguments):
        return build_model(f"plugged_nets:{name}", **{"input_shape": (4,), "num_classes": 3, **arguments})

    yield build
    sys.modules.pop("plugged_nets", None)


def calls() -> list:
    return sys.modules["plugged_nets"].calls


def test_a_builder_is_given_what_it_takes(nets):
    model = nets("build", input_shape=(1, 2, 2), dropout=0.25, architecture_args={"width": 5})
    assert calls() == [((1, 2, 2), 3, 0.25, 5)]
    assert model(torch.zeros(6, 1, 2, 2)).shape == (6, 3)
    assert model.training
    assert nets("only_classes")(torch.zeros(2, 4)).shape == (2, 3)


def test_a_builder_of_anything_is_spared_settings_nobody_made(nets):
    nets("anything")
    nets("anything", dropout=0.5, hidden_dims=(8,), activation="gelu", architecture_args={"depth": 2})
    neutral, full = calls()
    assert neutral == {"input_shape": (4,), "num_classes": 3}
    assert full == {**neutral, "dropout": 0.5, "hidden_dims": [8], "activation": "gelu", "depth": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("no_classes", {}, "must take the keyword `num_classes`"),
        ("only_classes", {"dropout": 0.5}, "`plugged_nets:only_classes` takes no dropout; leave it out"),
        ("build", {"architecture_args": {"depth": 2}}, "takes no further argument `depth`"),
        ("no_module", {}, "returned a str, not a torch.nn.Module"),
        ("wrong_output", {}, r"must map a batch of 2 to logits of shape \(2, 3\), not \(2, 4\)"),
        ("no_tensor", {}, r"logits of shape \(2, 3\), not tuple"),
        ("builder_fails", {}, "failed at building it with RuntimeError: no such thing"),
        ("forward_fails", {}, r"failed at a batch of shape \(2, 4\) with RuntimeError"),
        ("bild", {}, r"has no `bild`; did you mean `build`\?"),
    ],
)
def test_what_does_not_fit_is_said(nets, name, arguments, message):
    with pytest.raises(UsageError, match=message):
        nets(name, **arguments)


def test_trying_a_model_out_draws_nothing_from_the_random_stream(nets):
    torch.manual_seed(3)
    torch.nn.Linear(4, 3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    nets("draws")
    assert torch.equal(torch.rand(4), expected)


def test_a_callable_without_a_signature_is_refused():
    with pytest.raises(UsageError, match="does not tell which arguments it takes"):
        build_model("builtins:dict", input_shape=(4,), num_classes=3)
