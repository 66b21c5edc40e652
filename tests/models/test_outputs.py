"""Models whose output is a dictionary, a tuple or an object; binary and multi-label models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.nets import Linear
from torch import Tensor, nn

from transferbench import evaluate
from transferbench.base.errors import InputError
from transferbench.models import victims


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    features: Tensor
    logits: Tensor


class Returning(nn.Module):
    """A linear model that returns its logits in something."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.wrap = Linear(torch.randn(3, 4), torch.zeros(3)), wrap
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x), x.flatten(1))

    def predict(self, x: Tensor) -> Any:
        return self(x)


X = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
RETURNED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str | int, str]] = {
    "dictionary": (lambda z, h: {"logits": z, "hidden": h}, "logits", 'dict of .*; output="logits"'),
    "object": (Output, "logits", 'Output with logits, hidden.*; output="logits"'),
    "named tuple": (lambda z, h: Pair(h, z), "logits", 'Pair with features, logits.*; output="logits"'),
    "tuple": (lambda z, h: (z, h[:, 0]), 0, "tuple of 2, .*; output=0 takes that one"),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_the_logits_are_taken_out_of_the_output(kind: str) -> None:
    wrap, output, hint = RETURNED[kind]
    model = Returning(wrap)
    y = model.net(X).argmax(1)
    given: dict[str, Any] = {"threats": {"Linf": 0.1}, "attacks": "pgd:k=2", "progress": False}
    plain = evaluate(model.net, X, y, **given)
    for callable_ in (model, model.predict, lambda x: model(x)):
        report = evaluate(callable_, X, y, **given, output=output)
        assert report.robust == plain.robust
        assert report.verdicts.equals(plain.verdicts)
        with pytest.raises(InputError, match=f"the model returns {hint}"):
            evaluate(callable_, X, y, **given)
        with pytest.raises(InputError, match="no part 'more': it is"):
            evaluate(callable_, X, y, **given, output="more")
    with pytest.raises(InputError, match=r"train mode"):
        evaluate(Returning(wrap).train(), X, y, **given, output=output)
    for wrong in (True, 0.5, ""):
        with pytest.raises(InputError, match="give a key or a field"):
            evaluate(model, X, y, **given, output=wrong)


def test_models_that_choose_no_class_are_refused_with_what_to_do() -> None:
    y = torch.zeros(6, dtype=torch.int64)
    given: dict[str, Any] = {"threats": {"Linf": 0.1}, "attacks": "pgd:k=2", "progress": False}
    for shape in ((6,), (6, 1)):
        with pytest.raises(InputError, match=r"one logit z .* has the two logits 0 and z: return torch\.cat"):
            evaluate(lambda x, shape=shape: x.flatten(1).sum(1).view(len(x), *shape[1:]), X, y, **given)
    binary = evaluate(lambda x: torch.stack([torch.zeros(len(x)), x.flatten(1).sum(1)], 1), X, y + 1, **given)
    assert binary.clean == 1
    with pytest.raises(InputError, match="multi-label model, which chooses no single class"):
        evaluate(Returning(lambda z, _: z), X, torch.ones(6, 3), **given)


def test_a_function_names_the_part_of_its_models_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given_outputs.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.fc = nn.Linear(4, 3)\n    def forward(self, x):\n"
        "        return {'scores': self.fc(x.flatten(1))}\n\ndef net():\n    return Net().eval()\n"
        "net.input_shape, net.classes, net.output = (1, 2, 2), 3, 'scores'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    victim = victims.load("python:given_outputs:net")
    assert victim.model(X).shape == (6, 3)
    assert victim.layers.head == "model.fc"
