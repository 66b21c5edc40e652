"""One door for types: every form of the same images, labels, numbers and models gives the same evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.nets import Around, Small
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import transferbench
from transferbench.base.errors import InputError
from transferbench.base.specifications import Epsilon
from transferbench.engine.process_state import plain_process


def attacked(model: Any, x: Any, y: Any, eps: Any = "0.06", **more: Any) -> transferbench.Report:
    return transferbench.evaluate(model, x, y, {"Linf": eps}, attacks=("apgd-ce",), n_iter=3, **more)


@pytest.fixture(scope="module")
def small(small: Small) -> Small:
    """Fewer images: what is compared is types."""
    return Small(small.model, small.x[:24], small.y[:24], small.ids[:24])


@pytest.fixture(scope="module")
def plain(small: Small) -> transferbench.Report:
    return attacked(small.model, small.x, small.y)


@pytest.mark.cpu_only  # numpy has no arrays on a GPU
@pytest.mark.parametrize(
    "images",
    [
        lambda x: x.numpy(),
        lambda x: x.double(),
        lambda x: x.numpy().astype(np.float64),
        lambda x: x.clone().requires_grad_(),
        lambda x: x.tolist(),
        lambda x: x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
        torch.inference_mode()(lambda x: x.clone()),
    ],
)
def test_images_of_every_kind_are_the_same_images(small: Small, plain: Any, images: Callable[[Tensor], Any]) -> None:
    assert attacked(small.model, images(small.x), small.y).verdicts.equals(plain.verdicts)


@pytest.mark.cpu_only
@pytest.mark.parametrize("labels", [lambda y: y.numpy(), lambda y: y.tolist(), lambda y: y.int(), lambda y: y.byte()])
def test_labels_of_every_kind_are_the_same_labels(small: Small, plain: Any, labels: Callable[[Tensor], Any]) -> None:
    more = {"ids": np.arange(len(small.y)), "seed": np.int64(0), "batch_size": np.int32(64)}
    assert attacked(small.model, small.x, labels(small.y), **more).verdicts.equals(plain.verdicts)


@pytest.mark.parametrize("eps", [0.06, np.float64(0.06), "6/100", "6./100", ".06", " 0.06 "])
def test_radii_of_every_kind_are_the_same_radius(small: Small, plain: Any, eps: Any) -> None:
    robust = attacked(small.model, small.x, small.y, eps).robust["Linf"]
    assert Epsilon.parse(eps).value == Epsilon.parse("0.06").value
    assert robust == pytest.approx(plain.robust["Linf"], abs=0.09), "the text keys the starts, the radius is the same"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 1.5}, "seed=1.5 is not a whole number"),
        ({"seed": "0"}, "seed='0' is not a whole number"),
        ({"seed": None}, "seed=None is not"),
        ({"seed": True}, "seed=True is not"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not"),
        ({"batch_size": 0}, "at least 1"),
        ({"ids": [0] * 24}, "distinct"),
        ({"ids": np.arange(24) / 2}, "whole numbers"),
        ({"x": [[[["a"]]]]}, "images must be"),
        ({"x": torch.zeros(24, 1, 8, 8, dtype=torch.complex64)}, "real numbers"),
        ({"x": torch.zeros(24, 64).to_sparse()}, "dense tensor"),
        ({"x": np.zeros((24, 1, 8, 8), np.uint8)}, "divide by 255"),
        ({"x": torch.zeros(24, 1, 8, 8, device="meta")}, "meta device"),
        ({"x": "images.pt"}, "not str"),
        ({"y": torch.zeros(24)}, "whole numbers"),
    ],
)
def test_what_has_no_canonical_form_is_named(small: Small, change: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = {"x": small.x, "y": small.y, **change}
    with pytest.raises(InputError, match=complaint) as caught:
        attacked(small.model, given.pop("x"), given.pop("y"), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"threats": "Linf"}, "give radii with the names"),
        ({"threats": ["Linf"]}, "list of"),
        ({"threats": {}}, "at least one threat"),
        ({"attacks": ("fgsm",), "n_iter": 5}, "takes no number of iterations"),
        ({"n_iter": 2.0}, "n_iter=2.0 is not a whole number"),
        ({"n_iter": 0}, "at least 1"),
        ({"attacks": ("pretrained-neuron",)}, "holds the public model alone"),
        ({"attacks": ("apgd-ce", "random-sign")}, "holds the public model alone"),
        ({"attacks": ("source-pgd",)}, "holds the public model alone"),
    ],
)
def test_options_reach_the_attack_or_are_refused(small: Small, more: dict[str, Any], complaint: str) -> None:
    given = {"threats": {"Linf": "0.06"}, **more}
    with pytest.raises(InputError, match=complaint):
        transferbench.evaluate(small.model, small.x, small.y, **given)


def test_n_iter_reaches_every_attack_that_iterates(small: Small) -> None:
    correct = int((small.logits.argmax(1) == small.y).sum())
    for attack, passes in (("apgd-ce", 4), ("pgd", 4), ("apgd-dlr", 4)):
        report = transferbench.evaluate(
            small.model, small.x, small.y, {"Linf": "1e-6"}, attacks=(attack,), n_iter=np.int64(3)
        )
        assert report.cost.forwards == passes * correct


# Models


class InPlace(Around):
    """Normalises the caller's images in place, as torchvision's Normalize(inplace=True) does."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.sub_(0.1).add_(0.1))


@pytest.mark.parametrize(
    "make",
    [
        lambda net: net.forward,
        lambda net: lambda x: net(x),
        # Its images differ in the last bits, which on a GPU may lead to another point.
        pytest.param(lambda net: InPlace(net), marks=pytest.mark.cpu_only),
        lambda net: torch.jit.script(
            torch.jit.trace(net, torch.zeros(4, 1, 8, 8, device=next(net.parameters()).device))
        ),
    ],
    ids=["bound method", "function", "in place", "script"],
)
def test_models_that_can_simply_work_do(small: Small, plain: Any, make: Callable[[nn.Module], Any]) -> None:
    before = small.x.clone()
    report = attacked(make(small.model), small.x, small.y)
    assert abs(report.robust["Linf"] - plain.robust["Linf"]) < 0.02
    assert report.clean == plain.clean
    assert torch.equal(small.x, before), "an in-place model gets private copies"


def test_a_frozen_script_works(small: Small, plain: Any) -> None:
    frozen = torch.jit.freeze(torch.jit.script(torch.jit.trace(small.model, torch.zeros_like(small.x[:4])).eval()))
    assert attacked(frozen, small.x, small.y).clean == plain.clean


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_every_precision_go_through_one_cast(small: Small, plain: Any, dtype: torch.dtype) -> None:
    low = copy.deepcopy(small.model).to(dtype)
    report = attacked(low, small.x, small.y)
    same_values = attacked(copy.deepcopy(low).float(), small.x, small.y)
    assert report.robust == same_values.robust
    assert report.clean == same_values.clean
    assert report.flags == ()
    assert next(low.parameters()).dtype == dtype, "the caller's model is left alone"


def test_mixed_precision_inside_works(small: Small, plain: Any) -> None:
    def low(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return small.model(x)

    report = attacked(low, small.x, small.y)
    assert abs(report.robust["Linf"] - plain.robust["Linf"]) < 0.1
    assert "mixes-rows" not in report.flags


def test_what_is_switched_on_around_the_call_changes_nothing(small: Small, plain: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attacked(small.model, small.x, small.y).verdicts.equals(plain.verdicts)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        assert attacked(small.model, small.x, small.y).verdicts.equals(plain.verdicts)
    with torch.no_grad():
        assert attacked(small.model, small.x, small.y).verdicts.equals(plain.verdicts)
    torch.set_default_dtype(torch.float64)
    try:
        assert attacked(small.model, small.x, small.y).verdicts.equals(plain.verdicts)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def reentrant(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: checkpoint(net, x, use_reentrant=True)


class LazyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


@torch.inference_mode()
def made_in_inference_mode() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("a\nb")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda net: "RB_Carmon2019", "use `transferbench eval --model RB_Carmon2019`"),
        (lambda net: None, "not NoneType"),
        (lambda net: type(net), "not the class"),
        (lambda net: LazyNet(), "no shape yet"),
        (lambda net: reentrant(net), "use_reentrant=False"),
        (lambda net: made_in_inference_mode(), "inference_mode"),
        (lambda net: copy.deepcopy(net).to("meta"), "meta device"),
        (lambda net: Failing(), "the model fails on"),
        (lambda net: lambda: net, "the model fails on"),
        (lambda net: copy.deepcopy(net).train().forward, "train mode"),
    ],
)
def test_models_that_cannot_are_refused_in_words(
    small: Small, make: Callable[[nn.Module], Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        attacked(make(small.model), small.x, small.y)
    assert "\n" not in str(caught.value)


def test_the_process_is_as_before_after_an_error() -> None:
    state = torch.random.get_rng_state()

    def fail() -> None:
        with plain_process():
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_float32_is_float32_during_an_evaluation_and_the_callers_choice_after(small: Small) -> None:
    """TF32 in convolutions is torch's default on recent GPUs; its settings can be read on any machine."""
    seen = set()

    def looking(x: Tensor) -> Tensor:
        seen.add(precision())
        return small.model(x)

    def precision() -> tuple[str, ...]:
        backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
        return tuple(str(backend.fp32_precision) for backend in backends)

    before = precision()
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        chosen = precision()
        attacked(looking, small.x, small.y)
        assert precision() == chosen
    finally:
        torch.backends.cudnn.conv.fp32_precision, _, torch.backends.mkldnn.matmul.fp32_precision = before
    assert seen == {("ieee", "ieee", "ieee")}
