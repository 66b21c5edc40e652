"""Options in which the codes differ: what decays, padding of crops, an epoch's last batch, no validation images."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, SHORT, StoppedError, StopsAfter, same, settings, state_of

from transferbench import data, methods, suites
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.keyed_random import row_keys, uniform
from transferbench.cli.main import main
from transferbench.data.augment import crop_flip
from transferbench.methods import Network
from transferbench.models import cards, networks
from transferbench.models.cards import ModelCard
from transferbench.scheduling.plan import plan
from transferbench.training import loop
from transferbench.training.batches import Loader
from transferbench.training.splits import load_splits
from transferbench.training.victim import Recipe, train_victim

METHODS = list(registry.entries("methods"))
ROBUST_FINETUNING = ("eat", "apgd-at", "sat", "avg", "max", "msd", "trades")
CHALLENGE = ("madry", "free", "igam", "lwf", "probe", "unfreeze")
"""Methods whose code has the loader and the weight decay of Madry's challenge."""
_GUIDE = ("weights", "auto", True)
NEWER = {
    **{f"{id}{more}": _GUIDE for id in ("fft-5", "fft-50", "lp-50") for more in ("", "-trades")},
    **dict.fromkeys(("slf", "alf", "aff"), ("all", 4, True)),
    "roli": ("weights", "auto", False),
    "twins": ("all", 4, False),
    "ramp": ("all", 4, True),
}
"""What decays, the padding of crops, and whether an epoch's last batch may be smaller, in further codes."""
RENOFEATION = ("delta", "delta-r", "renofeation", "retrain", "l2sp", "finetune")


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def fit(id: str, source: Network | None, given: dict[str, Any], options: loop.FitOptions = loop.FIT_OPTIONS) -> Any:
    splits = data.load("digits", "train"), data.load("digits", "val")
    fresh = lambda: Network(*networks.build("small-resnet", 10)[:2])  # noqa: E731
    return loop.fit(methods.build(id, given), source, fresh, *splits, options)


@pytest.mark.parametrize("id", METHODS)
def test_defaults_are_those_of_the_codes(id: str) -> None:
    params = methods.build(id, {}).params
    if id in NEWER:
        assert (params.decay, params.crop_padding, params.partial_batches) == NEWER[id]
        return
    assert params.decay == ("weights" if id in CHALLENGE else "all")
    assert params.crop_padding == (2 if id in CHALLENGE else 4 if id in ROBUST_FINETUNING else "auto")
    assert params.partial_batches is (id in ROBUST_FINETUNING or id in RENOFEATION)
    assert params.validation == "tenth"


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_one_step_of_sgd_decays_what_it_should(decay: str, source: Network) -> None:
    """A step without and one with weight decay differ by lr times decay times the weight, or not at all."""
    given = {**SHORT, "steps": 1, "lr": 0.1, "head_lr": 2, "decay": decay}
    plain = dict(fit("finetune", source, {**given, "weight_decay": 0}).network.model.named_parameters())
    found = dict(fit("finetune", source, {**given, "weight_decay": 0.5}).network.model.named_parameters())
    start = dict(source.model.named_parameters())
    for name, parameter in found.items():
        if name.startswith("head"):
            assert torch.equal(parameter, plain[name]) is (decay == "weights" and name.endswith("bias"))
            continue
        rate = 0.05 if decay == "all" or parameter.dim() > 1 else 0.0
        assert torch.allclose(plain[name] - parameter, rate * start[name], atol=1e-6), name


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize("adam", [True, False])
def test_igams_discriminator_and_teacher_decay_as_the_student(decay: str, adam: bool, source: Network) -> None:
    given = {**settings("igam"), "decay": decay, "disc_adam": adam, "teacher_trains": "all", "weight_decay": 0.3}
    method: Any = methods.build("igam", given)
    method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    method._discriminator(torch.zeros(2, 1, 8, 8))
    for network, optimiser in ((method.discriminator, "disc"), (method.teacher.model, "teacher")):
        rate_of = {
            id(parameter): group["weight_decay"]
            for group in getattr(method, f"{optimiser}_optimiser").param_groups
            for parameter in group["params"]
        }
        for name, parameter in network.named_parameters():
            whole = decay == "all" or parameter.dim() > 1
            new_head = optimiser == "teacher" and name.startswith("head")
            assert rate_of[id(parameter)] == (0.3 if whole and not new_head else 0.0), name


def test_igams_student_steps_first_and_its_norms_have_the_codes_epsilon(source: Network) -> None:
    params = methods.build("igam", {}).params
    assert (params.disc_order, params.disc_bn_eps, params.teacher_batch_size) == ("after", 1e-3, 64)
    method: Any = methods.build("igam", {**settings("igam"), "disc_bn_eps": 0.25})
    method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    assert {norm.eps for norm in method._discriminator(torch.zeros(2, 1, 8, 8)).norms} == {0.25}
    last = [fit("igam", source, {**settings("igam"), "disc_order": order}) for order in ("after", "before")]
    assert not same(state_of(last[0].network), state_of(last[1].network))


@pytest.mark.parametrize("order", ["after", "before"])
def test_igam_resumes_in_either_order_with_images_waiting_for_the_teacher(
    order: str, source: Network, tmp_path: Path
) -> None:
    given = {**settings("igam"), "disc_order": order, "teacher_batch_size": 75}
    unbroken, broken = fit("igam", source, given), None
    while broken is None:
        try:
            broken = fit("igam", source, given, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 1)))
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


@pytest.mark.parametrize("batch_size", [16, 24, 64, 128])
def test_igams_teacher_makes_its_steps_on_batches_of_its_own_size(batch_size: int, source: Network) -> None:
    given = {**settings("igam"), "teacher_steps": 4, "teacher_batch_size": 64, "batch_size": batch_size, "steps": 40}
    method: Any = methods.build("igam", given)
    method.student(source, lambda: Network(*networks.build("small-resnet", 10)[:2]), 10)
    sizes, seen = [], []
    method._step_teacher = lambda x, y: (sizes.append(len(x)), seen.append(x))
    for batch in itertools.islice(Loader(data.load("digits", "train"), method.params).from_step(0), 20):
        seen_before = len(seen)
        method._train_teacher(batch) if method.teacher_done < 4 else None
        assert len(seen) - seen_before <= batch_size // 64 + 1
    assert sizes == [64] * 4
    assert method.pending is None


def test_crop_padding_by_hand() -> None:
    x = torch.arange(2 * 64, dtype=torch.float32).view(2, 1, 8, 8)
    keys = row_keys(5, torch.arange(2))
    drawn = uniform(keys, (3,))
    for padding, pad in ((0, 0), (2, 2), (4, 4), (None, 1)):
        got = crop_flip(x, keys, padding)
        for row in range(2):
            top, left = (int(drawn[row, axis] * (2 * pad + 1)) for axis in (0, 1))
            wanted = F.pad(x[row], (pad,) * 4)[:, top : top + 8, left : left + 8]
            wanted = wanted if float(drawn[row, 2]) < 0.5 else wanted.flip(2)
            assert torch.equal(got[row], wanted)
    digits = data.load("digits", "train")
    params = [
        methods.build("natural", {"augment": "crop-flip", "crop_padding": value}).params for value in ("3", "auto")
    ]
    padded = [next(Loader(digits, one).from_step(0)).x for one in params]
    assert not torch.equal(*padded)
    for wrong in ("-1", "1.5", "two"):
        with pytest.raises(InputError, match="crop_padding"):
            methods.build("natural", {"crop_padding": wrong})


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(64, [64, 64, 64, 8]), (50, [50] * 4), (199, [199]), (198, [198, 2])]
)
def test_partial_batches_keep_every_image_but_a_single_one(batch_size: int, sizes: list[int]) -> None:
    digits = data.load("digits", "train")
    params = methods.build("natural", {"partial_batches": True, "batch_size": batch_size}).params
    loader = Loader(digits, params)
    assert loader.per_epoch == len(sizes)
    two = list(itertools.islice(loader.from_step(0), 2 * len(sizes)))
    assert [len(batch.x) for batch in two] == sizes * 2
    assert [len(batch.x) for batch in loader.epoch(1)] == sizes
    first = torch.cat([batch.x for batch in two[: len(sizes)]]).flatten(1).sort(0).values
    if sum(sizes) == 200:
        assert torch.equal(first, digits.images.flatten(1).sort(0).values), "every image once"
    third = next(loader.from_step(len(sizes) + 1)) if len(sizes) > 1 else two[1]
    assert torch.equal(third.x, two[len(sizes) + 1].x if len(sizes) > 1 else two[1].x)
    whole = Loader(digits, methods.build("natural", {"batch_size": batch_size}).params)
    assert {len(batch.x) for batch in itertools.islice(whole.from_step(0), 5)} == {batch_size}


@pytest.mark.parametrize("id", ["finetune", "eat", "igam", "renofeation"])
def test_a_training_with_partial_batches_resumes_to_the_same_bits(id: str, source: Network, tmp_path: Path) -> None:
    given = {**settings(id), "batch_size": 90, "partial_batches": True}
    unbroken, broken = fit(id, source, given), None
    while broken is None:
        try:
            broken = fit(id, source, given, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 1)))
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


def test_frees_perturbation_takes_no_partial_batch() -> None:
    with pytest.raises(InputError, match="slots of a whole batch"):
        methods.build("free", {"partial_batches": "true"})


def test_without_validation_all_images_train() -> None:
    whole, none = load_splits("digits", validation="none")
    train, val = load_splits("digits")
    assert none is None
    assert val is not None
    assert whole.ids.tolist() == sorted(train.ids.tolist() + data.load("digits", "val").ids.tolist())
    assert len(whole) == 400
    label_of = dict(zip(train.ids.tolist(), train.labels.tolist(), strict=True))
    image_of = dict(zip(train.ids.tolist(), train.images, strict=True))
    for id_, label, image in zip(whole.ids.tolist(), whole.labels.tolist(), whole.images, strict=True):
        assert label_of.get(id_, label) == label
        assert torch.equal(image_of.get(id_, image), image)
    assert load_splits("digits", shots=30, validation="none")[0].class_counts() == [30] * 10


def test_without_validation_files_are_joined(tmp_path: Path) -> None:
    from transferbench.smoke import trees

    trees.mit67(tmp_path)
    view = data.View("Res40Crop32")
    whole, _ = load_splits("mit67", tmp_path, view, validation="none")
    train, val = load_splits("mit67", tmp_path, view)
    assert val is not None
    assert set(whole.ids.tolist()) == {*train.ids.tolist(), *data.load("mit67", "val", tmp_path, view).ids.tolist()}
    position = whole.ids.tolist().index(int(val.ids[0]))
    assert torch.equal(whole.images[torch.tensor([position])], val.images[torch.tensor([0])])


def test_train_without_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "--plugin",
        "natural",
        "--target",
        "digits",
        "--set",
        "steps=2",
        "--set",
        "batch_size=300",
        "--set",
        "validation=none",
    ]
    assert main([*words, "--eval-freq", "1", "--out", "w"]) == 2
    assert "--eval-freq measures on validation images" in capsys.readouterr().err
    assert main([*words, "--out", "v"]) == 0
    assert "trained on 400 images, none kept for validation" in capsys.readouterr().out
    card = cards.read(tmp_path / "v" / "README.md")
    assert card.validation_accuracy is None
    assert card.params["validation"] == "none"
    assert main([*words, "--out", "v"]) == 0, "a finished training is found again"


@pytest.mark.parametrize("name", ["croce2021", "igam2020", "renofeation2020", "shafahi2020", "shafahi2020-split"])
def test_the_papers_suites_train_on_every_image(name: str) -> None:
    suite = suites.load(name)
    trainings = [job for job in plan(suite, suite.seeds).jobs if job.kind == "train"]
    assert trainings
    for job in trainings:
        assert job.splits.validation == "none", job.label  # type: ignore[attr-defined]


def small_card(source: Any, id: str, given: dict[str, Any]) -> ModelCard:
    digits = data.load("digits", "train"), data.load("digits", "val")
    return train_victim(Recipe("v", id, "digits", ""), methods.build(id, {**settings(id), **given}), source, digits)[1]


def test_a_card_names_a_source_only_where_its_weights_were_used(small_victim: Any) -> None:
    for id, given in (
        ("natural", {}),
        ("scratch", {}),
        ("retrain", {}),
        ("madry", {"from_scratch": True}),
        ("eat", {"from_scratch": True}),
    ):
        card = small_card(small_victim, id, given)
        assert (card.source, card.head, card.network) == ("", "", "small-resnet"), id
        assert f"from scratch, in the architecture of `{small_victim.id}`" in card.text
        assert "base_model" not in cards.write(card)
    for id in ("finetune", "igam", "delta-r", "madry"):
        card = small_card(small_victim, id, {})
        assert card.source == small_victim.id, id
        assert card.head == "new"
        assert f"from `{small_victim.id}`" in card.text
    splits = data.load("digits", "train"), data.load("digits", "val")
    recipe = Recipe("v", "natural", "digits", "small-resnet")
    card = train_victim(recipe, methods.build("natural", SHORT), None, splits)[1]
    assert card.text.endswith("on `digits`, from scratch.")


def test_every_parameter_of_every_method_can_be_written_on_a_card(small_victim: Any) -> None:
    for id in METHODS:
        params = dataclasses.asdict(methods.build(id, {"crop_padding": 3}).params)
        assert (
            ModelCard(
                id="x", network="n", dataset="d", classes=("a", "b"), input_shape=(1, 8, 8), method=id, params=params
            ).params["crop_padding"]
            == 3
        )
