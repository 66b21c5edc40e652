"""What is refused, what is only flagged, and that nothing of the caller's changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.nets import Small
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.base.results import AttackTally
from transferbench.engine import canonical, preflight
from transferbench.engine.search_model import as_is, copy_of


class Wrapped(nn.Module):
    """A net whose output or input goes through a function."""

    def __init__(self, net: nn.Module, change: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.net, self.change, self.calls = net, change, 0
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.change(self.net, x)


def flags_of(model: nn.Module, small: Small) -> tuple[str, ...]:
    return preflight.check_model(model, small.x[:16], small.y[:16]).flags


def test_a_clean_net_has_no_flag(small: Small) -> None:
    assert flags_of(small.model, small) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda net, x: (net(x), 1), "returns tuple"),
        (lambda net, x: {"logits": net(x)}, "returns dict"),
        (lambda net, x: net(x)[:, 0], "expected float logits"),
        (lambda net, x: net(x).long(), "expected float logits"),
        (lambda net, x: net(x)[:-1], "expected float logits"),
        (lambda net, x: net(x) * float("nan"), "not finite"),
        (lambda net, x: net(x).detach(), "not differentiable"),
        (lambda net, x: net(x.detach()), "not differentiable"),
        (lambda net, x: net(x.new_zeros(x.shape)) + next(net.parameters()).sum() * 0, "not differentiable"),
        (torch.no_grad()(lambda net, x: net(x)), "not differentiable"),
    ],
)  # fmt: skip
def test_a_model_that_would_make_numbers_wrong_is_refused(
    small: Small, change: Callable[[nn.Module, Tensor], object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        preflight.check_model(Wrapped(small.model, change), small.x[:16], small.y[:16])
    assert "\n" not in str(caught.value)


def test_one_sub_module_in_train_mode_is_enough_to_refuse(small: Small) -> None:
    small.model.stage2.bn1.train()  # type: ignore[union-attr]
    try:
        with pytest.raises(InputError, match=r"stage2\.bn1 is in train mode"):
            preflight.check_model(small.model, small.x[:16], small.y[:16])
        assert small.model.stage2.bn1.training  # type: ignore[union-attr]
    finally:
        small.model.eval()


class Counting(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.calls = net, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x)


def test_a_model_that_draws_noise_is_flagged(small: Small) -> None:
    noisy = Wrapped(small.model, lambda net, x: net(x + 0.1 * torch.randn_like(x)))
    assert flags_of(noisy, small) == ("randomised",)


def test_state_that_changes_between_calls_is_flagged_and_never_copied(small: Small) -> None:
    looked = preflight.check_model(Counting(small.model), small.x[:16], small.y[:16])
    assert looked.flags == ("state-between-calls",)
    assert looked.batch_dependent


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "must be floats"),
        (torch.full((4, 1, 8, 8), 255.0), "not in"),
        (torch.full((4, 1, 8, 8), -0.01), "not in"),
        (torch.full((4, 1, 8, 8), float("nan")), "NaN"),
        (torch.zeros(0, 1, 8, 8), "at least 1"),
        (torch.zeros(3, 1, 8, 8), "3 images but 4 labels"),
        ([0.1], "expected"),
    ],
)
def test_bad_images_are_refused(x: Tensor, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        canonical.examples(x, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    "y", [torch.zeros(4), torch.zeros(4, 1).long(), torch.eye(4).long(), torch.zeros(4, dtype=torch.bool), [0.5] * 4]
)
def test_bad_labels_are_refused(y: Tensor) -> None:
    with pytest.raises(InputError, match="labels"):
        canonical.examples(torch.zeros(4, 1, 8, 8), y)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_every_integer_label_type_is_fine(dtype: torch.dtype) -> None:
    _, y, _ = canonical.examples(torch.zeros(4, 1, 8, 8), torch.arange(4).to(dtype))
    assert y.dtype == torch.int64


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_outside_the_classes_are_refused(small: Small, label: int) -> None:
    y = small.y[:16].clone()
    y[3] = label
    with pytest.raises(InputError, match=r"classes 0\.\.9"):
        preflight.check_model(small.model, small.x[:16], y)


def test_rounding_outside_the_box_is_clamped_and_reported() -> None:
    x = torch.full((2, 1, 8, 8), 1 + 5e-7)
    got, _, clamped = canonical.examples(x, torch.zeros(2, dtype=torch.int64))
    assert clamped
    assert float(got.max()) == 1
    assert float(x.max()) > 1, "the caller's tensor is left alone"


def test_chance_is_a_binomial_test() -> None:
    assert preflight.at_chance(10, 100, 10)
    assert not preflight.at_chance(30, 100, 10)
    assert not preflight.at_chance(1, 49, 10), "too few examples to say"


def test_the_copy_is_folded_and_agrees(small: Small) -> None:
    frozen = copy_of(small.model, small.x[:16])
    assert (frozen.folded, frozen.copied, frozen.floor) == (True, True, 4)
    with torch.no_grad():
        assert torch.allclose(frozen.network(small.x), small.model(small.x), atol=1e-4)
    assert all(parameter.requires_grad for parameter in small.model.parameters()), "the original is left alone"


def test_what_cannot_be_traced_is_copied_plain_and_what_cannot_be_copied_is_used_as_it_is(small: Small) -> None:
    class Branching(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) if float(x.sum()) > -1 else self.net(-x)

    class Stubborn(Branching):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("not me")

    plain = copy_of(Branching(small.model).eval(), small.x[:16])
    assert (plain.folded, plain.copied) == (False, True)
    stubborn = Stubborn(small.model).eval()
    assert copy_of(stubborn, small.x[:16]) == as_is(stubborn)


def test_a_trace_that_bakes_a_value_in_is_noticed(small: Small) -> None:
    class Drifting(nn.Module):
        """Python state that a trace freezes: the copy would answer for the first call for ever."""

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.scale = net, 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.scale += 1
            return self.net(x) * self.scale

    model = Drifting(small.model).eval()
    assert preflight.check_model(model, small.x[:16], small.y[:16]).batch_dependent


class StraightThrough(torch.autograd.Function):
    """Rounds, and hands the gradient on as if it had not."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def test_a_trace_that_loses_a_custom_gradient_is_not_used(small: Small) -> None:
    """The trace would keep the rounding and drop its gradient."""

    class Defence(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(StraightThrough.apply(x))

    model = Defence(small.model).eval()
    frozen = copy_of(model, small.x[:16])
    assert not frozen.folded
    point = small.x[:16].clone().requires_grad_()
    (slope,) = torch.autograd.grad(frozen.network(point).sum(), point)
    assert float(slope.abs().max()) > 0


def test_a_trace_that_loses_the_gradient_of_some_rows_is_not_used(small: Small) -> None:
    """A third of the rows would lose theirs: the median row alone would let that pass."""
    brightness = small.x[:16].flatten(1).mean(1)
    threshold = float(brightness.sort().values[-5])

    class SomeRows(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            bright = (x.flatten(1).mean(1) >= threshold)[:, None, None, None]
            return self.net(torch.where(bright, StraightThrough.apply(x), x))

    assert not copy_of(SomeRows(small.model).eval(), small.x[:16]).folded


def test_a_forward_that_optimises_is_flagged(small: Small) -> None:
    def sharpened(net: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(net(point).sum(), point)
        return net(x + 0.01 * slope)

    assert "gradient-inside" in flags_of(Wrapped(small.model, sharpened), small)


@pytest.mark.parametrize(("broke", "masked"), [(0, False), (1, True)])
def test_square_after_gradients_tells_of_masking(broke: int, masked: bool) -> None:
    account = [AttackTally("apgd-ce", 1, 3, 9), AttackTally("square", 1, broke, 9)]
    assert preflight.gradients_masked(account) is masked
    assert not preflight.gradients_masked([AttackTally("square", 1, 5, 9)])


def test_a_smoke_runs_two_rows_are_compared_with_no_larger_batch(small: Small) -> None:
    """What it looks at must not grow with the rows in flight: a large network would take minutes a row."""
    asked = [preflight.check_model(small.model, small.x[:16], None, most, rows=2).rows for most in (4, 256)]
    assert asked[0] == asked[1] < 64
    whole = [preflight.check_model(small.model, small.x[:16], None, most).rows for most in (4, 256)]
    assert whole[1] > whole[0] + 128
