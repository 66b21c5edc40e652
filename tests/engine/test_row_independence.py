"""A model whose answers depend on its batch is noticed, whatever the dependence, and is judged at one batch size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.nets import Around, Small
from torch import Tensor, nn

import transferbench
from transferbench.engine.preflight import check_model
from transferbench.engine.row_independence import mixes_rows


class Mixing(Around):
    """A network whose features are changed by a function of the whole batch."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__(net)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        if self.kind == "batch mean":
            return z - z.mean(0, keepdim=True)
        if self.kind == "noise seeded inside":
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
            return z + 0.5 * noise.to(z)
        if self.kind == "place":
            return z + 0.01 * torch.arange(len(z)).to(z)[:, None] * torch.tensor([1.0] + [0.0] * 9).to(z)
        if self.kind == "batch size":
            return z * (1 + 0.1 * torch.tensor([1.0] + [0.0] * 9).to(z) * (len(x) > 16))
        if self.kind == "first row":
            return z - 0.3 * z[:1]
        if self.kind == "attention":
            return (z @ z.T).softmax(1) @ z
        if self.kind == "batch norm":
            return nn.functional.batch_norm(z, None, None, training=True)
        raise AssertionError(self.kind)


KINDS = ("batch mean", "noise seeded inside", "place", "batch size", "first row", "attention", "batch norm")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dependence_is_flagged(small: Small, kind: str) -> None:
    for rows in (16, 3, 1):
        report = check_model(Mixing(small.model, kind), small.x[:rows], small.y[:rows])
        assert report.flags == ("mixes-rows",), rows
        assert report.batch_dependent


def test_rounding_is_not_a_dependence(small: Small) -> None:
    deep = nn.Sequential(nn.Flatten(), *[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(20)]).eval()
    deep.to(small.x.device)
    for network in (small.model, deep):
        assert check_model(network, small.x[:16], None).flags == ()
    for dtype in (torch.float16, torch.bfloat16):

        def rounded(x: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            return small.model(x).to(dtype).float()

        with torch.no_grad():
            assert not mixes_rows(rounded, small.x[:16], 64, 2e-2)


def test_a_network_that_cannot_answer_a_single_image_is_fine(small: Small) -> None:
    squeezed = check_model(lambda x: small.model(x).squeeze(0), small.x[:16], small.y[:16])
    assert squeezed.flags == ()


@pytest.mark.parametrize("kind", ["batch mean", "noise seeded inside"])
def test_it_is_attacked_in_one_job_with_one_batch_size(small: Small, kind: str, tmp_path: Path) -> None:
    x, y = small.x.repeat(5, 1, 1, 1)[:280], small.y.repeat(5)[:280]
    model = Mixing(small.model, kind)

    def evaluate(batch: int, store: Path | None = None) -> transferbench.Report:
        return transferbench.evaluate(
            model, x, y, {"Linf": "0.06"}, attacks=("apgd-ce",), n_iter=4, batch_size=batch, store=store
        )

    for batch in (16, 40):
        plain, stored = evaluate(batch), evaluate(batch, tmp_path)
        assert "mixes-rows" in plain.flags
        assert plain.batch == stored.batch == batch
        assert plain.verdicts.equals(stored.verdicts), "one job over both shards, as without a store"
        again = evaluate(batch, tmp_path)
        assert again.cost.forwards == stored.cost.forwards
        assert again.verdicts.equals(stored.verdicts), "the key holds the batch size"
    files = list((tmp_path / "examples").glob("*.safetensors"))
    assert len(files) == 2, "one result per batch size, none per shard"


def test_an_independent_model_keeps_its_shards_and_has_no_batch(small: Small, tmp_path: Path) -> None:
    x, y = small.x.repeat(5, 1, 1, 1)[:280], small.y.repeat(5)[:280]
    report = transferbench.evaluate(small.model, x, y, {"Linf": "0.06"}, attacks=("pgd",), n_iter=2, store=tmp_path)
    assert report.batch is None
    assert "mixes-rows" not in report.flags
    assert len(list((tmp_path / "examples").glob("*.safetensors"))) == 2


class Trap(Around):
    """Independent on clean images; near adversarial ones every answer holds the batch's mean."""

    def __init__(self, net: nn.Module, clean: Tensor) -> None:
        super().__init__(net)
        self.clean = clean

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        near = (torch.cdist(x.flatten(1), self.clean.flatten(1)).amin(1) > 0.1) & (x.flatten(1).std(1) > 0.05)
        return z + near[:, None] * 0.2 * z.mean(0, keepdim=True) * (len(x) != 16)


def test_dependence_at_the_end_points_is_found_after_the_attack(small: Small) -> None:
    grid = torch.cat([small.x * scale for scale in (1, 0.5)] + [1 - small.x])
    report = transferbench.evaluate(
        Trap(small.model, grid), small.x, small.y, {"Linf": "0.06"}, attacks=("apgd-ce",), n_iter=4
    )
    assert "mixes-rows" in report.flags
    assert report.flag_rows["mixes-rows"] > 0


class Masked(Around):
    """Mixes rows, and has one class that is masked by a large constant."""

    def __init__(self, net: nn.Module, constant: float) -> None:
        super().__init__(net)
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return torch.cat([z - z.mean(0, keepdim=True), torch.full((len(x), 1), self.constant).to(z)], 1)


@pytest.mark.parametrize("constant", [-1e2, -1e4, -1e6, 0.0])
def test_one_large_logit_hides_no_dependence(small: Small, constant: float) -> None:
    assert check_model(Masked(small.model, constant), small.x[:16], small.y[:16]).flags == ("mixes-rows",)
    honest = nn.Sequential(small.model, nn.ConstantPad1d((0, 1), constant)).eval()
    assert check_model(honest, small.x[:16], small.y[:16]).flags == ()


class NeighboursGradient(Around):
    """The values are its own, the gradient is the next row's."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z.detach() + z.roll(1, 0) - z.roll(1, 0).detach()


def test_gradients_that_depend_on_the_place_are_flagged(small: Small) -> None:
    assert "mixes-rows" in check_model(NeighboursGradient(small.model), small.x[:16], small.y[:16]).flags


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_size_of_the_logits_is_no_dependence(small: Small, scale: float) -> None:
    for network in (lambda x: small.model(x) * scale, lambda x: small.model(x)[:, :2] * scale):
        assert check_model(network, small.x[:16], None).flags == ()
    assert check_model(lambda x: small.model(x) + 1e6, small.x[:16], None).flags == ()


class Late(Around):
    """Mixes rows where pixels are at the border of the box, in numbers that clean images do not have."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        moved = ((x * 16).frac().abs() > 1e-3).float().mean((1, 2, 3), keepdim=False)[:, None]
        return z - 0.9 * moved * (moved * z).mean(0, keepdim=True)


def test_what_is_found_at_the_end_points_is_attacked_again_together(small: Small, tmp_path: Path) -> None:
    x, y = small.x.repeat(5, 1, 1, 1)[:280], small.y.repeat(5)[:280]

    def evaluate(**more: object) -> transferbench.Report:
        return transferbench.evaluate(
            Late(small.model), x, y, {"Linf": "0.06"}, attacks=("apgd-ce",), n_iter=3, batch_size=40, **more
        )  # type: ignore[arg-type]

    plain, stored = evaluate(), evaluate(store=tmp_path)
    assert "mixes-rows" in plain.flags
    assert plain.batch == stored.batch == 40
    assert len(plain.verdicts) == len(stored.verdicts) == 280
    assert plain.robust == stored.robust


class Clamped(Around):
    def __init__(self, net: nn.Module, cap: float) -> None:
        super().__init__(net)
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)[:, None] > 0.35
        return torch.where(bright, self.net(x).clamp(max=self.cap), self.net(x))


def test_models_that_agree_on_the_first_images_are_not_taken_for_each_other(small: Small, tmp_path: Path) -> None:
    order = small.x.flatten(1).mean(1).argsort()
    x, y = small.x[order], small.y[order]
    assert float(x[15].mean()) < 0.35 < float(x[-1].mean())
    for wrap in (lambda model: model, lambda model: lambda x: model(x)):
        clean = []
        for cap in (1e9, -3.0):
            report = transferbench.evaluate(
                wrap(Clamped(small.model, cap)), x, y, {"Linf": "0.06"}, attacks=("pgd",), n_iter=2, store=tmp_path
            )
            clean.append(report.clean)
        assert clean[0] > clean[1]
