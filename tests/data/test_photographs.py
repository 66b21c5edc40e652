"""Sources and targets of different resolutions, end to end: resizing inside a network, photographs of any size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.nets import Linear
from support.tiny_suite import Recorder

from transferbench import data, methods
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.cli.main import main
from transferbench.data import View
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.networks import PublicNetwork
from transferbench.models import networks, trained, victims
from transferbench.models.cards import ModelCard
from transferbench.models.features import Penultimate
from transferbench.models.victim import Victim, fitted
from transferbench.scheduling.scheduler import Scheduler
from transferbench.smoke import trees
from transferbench.store.store import Store
from transferbench.training import loop
from transferbench.training.splits import load_splits
from transferbench.training.victim import Recipe, train_victim


@pytest.fixture(scope="module")
def source() -> Victim:
    """A CIFAR-sized public network with fresh weights."""
    torch.manual_seed(0)
    built = networks.build("preact-resnet18", 10)
    card = ModelCard(
        id="public",
        network="preact-resnet18",
        dataset="cifar10",
        classes=tuple("abcdefghij"),
        input_shape=built.input_shape,
        method="natural",
        threats={"Linf": "8/255"},
    )
    return Victim(card, built.model.eval().requires_grad_(False), built.layers, "0" * 64)


def test_a_network_is_fitted_to_another_resolution(source: Victim) -> None:
    x = torch.rand(2, 3, 64, 64)
    smaller = fitted(source, (3, 64, 64))
    wanted = source.model(F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True))
    assert torch.equal(smaller.model(x), wanted)
    assert smaller.card.network == "resized:64-32:preact-resnet18"
    assert smaller.card.input_shape == (3, 64, 64)
    assert torch.equal(
        Penultimate(smaller.model, smaller.layers)(x),
        Penultimate(source.model, source.layers)(F.interpolate(x, (32, 32), mode="bilinear", antialias=True)),
    )
    larger = fitted(source, (3, 16, 16))
    little = torch.rand(2, 3, 16, 16)
    assert torch.allclose(larger.model(little), source.model(F.interpolate(little, (32, 32), mode="bilinear")))
    assert fitted(source, (3, 32, 32)) is source
    for shape in ((1, 32, 32), (3, 32, 40)):
        with pytest.raises(InputError, match="takes images of shape"):
            fitted(source, shape)
    grey = Victim(
        source.card.model_copy(update={"input_shape": (12,)}),
        Linear(torch.zeros(3, 12), torch.zeros(3)),
        source.layers,
        "0" * 64,
    )
    with pytest.raises(InputError, match="takes images of shape"):
        fitted(grey, (3, 2, 2))


def trained_on(source: Victim, target: str, root: Path, out: Path, **settings: object) -> Victim:
    """Two steps of fine-tuning, saved and loaded."""
    method = methods.build("finetune", {"steps": 2, "batch_size": 4, "seed": 0, **settings})
    view = View.of(source.card.preprocessing, source.card.input_shape)
    splits = load_splits(target, root, view)
    recipe = Recipe(out.name, "finetune", target, source.card.network)
    model, card, _ = train_victim(recipe, method, source, splits)
    trained.save(out, model.state_dict(), card)
    return trained.load(out)


def test_a_source_serves_a_target_of_another_resolution(
    source: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.tinyimagenet(tmp_path)
    victim = trained_on(source, "tinyimagenet", tmp_path, tmp_path / "v")
    assert victim.card.network == "resized:64-32:preact-resnet18"
    assert (victim.card.input_shape, victim.card.preprocessing) == ((3, 64, 64), "")
    test = data.load("tinyimagenet", "test", tmp_path, View.of("", victim.card.input_shape))
    victim.check_fits(test.id, test.shape, test.classes)
    assert victim.model(test.first(2).pixels).shape == (2, 3)


@pytest.mark.slow
def test_photographs_come_in_the_sources_resolution_and_the_card_says_how(
    source: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = trees.folder(tmp_path)
    victim = trained_on(source, tree.id, tmp_path, tmp_path / "v")
    assert (victim.card.input_shape, victim.card.preprocessing) == ((3, 32, 32), "Res37Crop32")
    monkeypatch.chdir(tmp_path)
    words = ["eval", "--model", "v", "--norms", "Linf", "--eps", "Linf=8/255", "--attacks", "fgsm", "--n", "6"]
    assert main([*words, "--out", "e"]) == 0
    out = capsys.readouterr().out
    assert "mine test, first 6" in out
    assert main([*words, "--out", "e"]) == 0
    assert "[1/" not in capsys.readouterr().err, "found in the store"
    # Another file under the same name is another data set.
    path = data.load(tree.id, "test", tmp_path, View("Res37Crop32")).images.paths[0]  # type: ignore[union-attr]
    trees.photo(path, 999)
    assert main([*words, "--out", "e"]) == 2
    assert "other images" in capsys.readouterr().err
    assert main([*words, "--out", "e2"]) == 0
    assert "[1/" in capsys.readouterr().err


def test_training_pipelines_are_keyed(source: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.folder(tmp_path)
    weights = [
        trained_on(source, tree.id, tmp_path, tmp_path / f"v{number}", **settings).sha256
        for number, settings in enumerate(({}, {}, {"augment": "none"}, {"augment": "resized-crop-flip"}))
    ]
    assert weights[0] == weights[1], "the same seed, the same crops, the same weights"
    assert len(set(weights)) == 3
    splits = data.load("digits", "train"), data.load("digits", "val")
    method = methods.build("natural", {"steps": 1, "batch_size": 4, "augment": "resized-crop-flip"})
    fresh = methods.Network(*networks.build("small-resnet", 10)[:2])
    with pytest.raises(InputError, match="digits is in memory: use crop-flip or none"):
        loop.fit(method, None, lambda: fresh, *splits)


def test_a_network_of_other_channels_is_refused(tmp_path: Path) -> None:
    method = methods.build("natural", {"steps": 1})
    splits = data.load("digits", "train"), data.load("digits", "val")
    recipe = Recipe("v", "natural", "digits", "preact-resnet18")
    with pytest.raises(InputError, match="takes 3 channels, digits has 1"):
        train_victim(recipe, method, None, splits)


def test_a_scheduler_decodes_shards_only(source: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees.folder(tmp_path)
    victim = trained_on(source, tree.id, tmp_path, tmp_path / "v")
    decoded: list[int] = []
    stack = data.Files._stack
    monkeypatch.setattr(
        data.Files, "_stack", lambda self, places, change: decoded.append(len(places)) or stack(self, places, change)
    )
    with Store(tmp_path / "s") as store:
        scheduler = Scheduler(store, RunSettings(data_dir=tmp_path))
        scheduler.resources.provide_network("v", victim)
        scheduler.run([CleanJob("clean", PublicNetwork("v"), ImagesInput(tree.id, "Res37Crop32"))], Recorder())
        assert sum(scheduler.resources.test(tree.id, "Res37Crop32").first(8).class_counts()) == 8
    # 16 rows of pre-flight do not exist here: 12 test images are looked at once for it, and once to be counted.
    assert decoded == [12, 12]


@pytest.mark.parametrize("n", [30, 90, 180])
def test_the_first_n_of_a_folder_have_every_class_in_proportion(tmp_path: Path, n: int) -> None:
    from PIL import Image
    from scipy.stats import chisquare

    sizes = {"few": 40, "more": 120, "most": 240}
    for name, count in sizes.items():
        (tmp_path / "test" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / "test" / name / f"{number}.png")
    test = data.load(f"folder:{tmp_path}", "test")
    assert test.class_counts() == [40, 120, 240]
    expected = [n * count / 400 for count in sizes.values()]
    assert chisquare(test.first(n).class_counts(), expected).pvalue > 0.001


def test_lists_say_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.cub200(tmp_path)
    assert main(["list", "datasets", "--data-dir", str(tmp_path)]) == 0
    said = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert said["cub200"] == "present"
    assert said["dogs120"] == "missing"
    assert said["digits"] == "ready"


def test_few_shots_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--plugin", "natural", "--target", "digits", "--set", "steps=2", "--set", "batch_size=10"]
    assert main([*words, "--shots", "3", "--out", "few"]) == 0
    assert victims.load("few").card.shots == 3
    assert main([*words, "--shots", "21", "--out", "many"]) == 2
    assert not (tmp_path / "many").exists()
