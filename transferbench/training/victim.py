"""Trains a victim: fits the source to the images, runs the training loop and writes the card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.versions import versions, versions_of_network
from transferbench.data import Dataset
from transferbench.data.few_shot import Rule
from transferbench.methods import BaseMethod, Network, stated
from transferbench.models import networks
from transferbench.models.cards import ModelCard
from transferbench.models.class_names import same_classes
from transferbench.models.victim import Victim, fitted
from transferbench.training import loop
from transferbench.training.loop import FIT_OPTIONS, FitOptions, Trained, fit
from transferbench.training.splits import Splits


@dataclass(frozen=True)
class Recipe:
    """What is trained, as the card records it.

    `network` is the architecture for methods that do not use the source's (empty: the source's). `untrained` marks a
    smoke run. Radii are added to the card afterwards, so that another radius needs no new training.
    """

    victim: str
    method: str
    dataset: str
    network: str
    shots: int | None = None
    untrained: bool = False
    shots_rule: Rule = "keyed"


def check(recipe: Recipe, method: BaseMethod[Any], source: Victim | None, train: Dataset) -> tuple[Victim | None, str]:
    """(source with a resizing layer where its images have another size, id of the student's architecture).

    InputError when method, source and data do not fit together.
    """
    loop.check(method, source is not None, train)
    source = None if source is None else fitted(source, train.shape)
    keeps_head(method, source, train)
    source_network = source.card.network if source is not None else ""
    network = method.network(source_network, recipe.network)
    is_source_network = bool(source_network) and network.endswith(source_network)
    channels = train.shape[0] if is_source_network else networks.input_shape(network)[0]
    if channels != train.shape[0]:
        raise InputError(f"network {network} takes {channels} channels, {train.id} has {train.shape[0]}")
    return source, network


def keeps_head(method: BaseMethod[Any], source: Victim | None, train: Dataset) -> bool:
    """Whether the student keeps the source's classifier, as the method's `new_head` says.

    `auto`: where the classes have the same names in the same order. Names that are only numbers say nothing about the
    classes, so that there the data sets must be the same too. InputError where `no` cannot be done.
    """
    choice = method.params.new_head
    if choice == "yes":
        return False
    if source is None or method.params.from_scratch or not method.can_keep_head:
        if choice == "no":
            raise InputError("new_head=no: the network starts without the source's classifier; leave new_head out")
        return False
    if choice == "auto":
        same = same_classes(source.card.classes, train.classes)
        return source.card.dataset == train.id if same is None else same
    if len(source.card.classes) != len(train.classes):
        raise InputError(
            f"new_head=no: {source.id} has {len(source.card.classes)} classes, {train.id} has {len(train.classes)}"
        )
    return True


def train_victim(
    recipe: Recipe,
    method: BaseMethod[Any],
    source: Victim | None,
    splits: Splits,
    options: FitOptions = FIT_OPTIONS,
) -> tuple[nn.Module, ModelCard, Trained]:
    """(network, its card without weights, the training's result).

    InputError when method, source and data do not fit together; FaultError as `fit`.
    """
    train, _ = splits
    source, network = check(recipe, method, source, train)
    classes = len(train.classes)
    method.keeps_head = keeps_head(method, source, train)
    trained = fit(
        method,
        None if source is None else Network(source.model, source.layers),
        lambda: Network(*networks.build(network, classes)[:2]),
        *splits,
        options,
    )
    uses_source = source is not None and method.uses_source and not method.params.from_scratch
    origin = ", from scratch."
    if source is not None:
        origin = f", from `{source.id}`." if uses_source else f", from scratch, in the architecture of `{source.id}`."
    accuracy = trained.validation_accuracy
    preset_of = registry.preset_of(registry.find("methods", recipe.method))
    means = f"`{recipe.method}`, a setting of `{preset_of}`," if preset_of else f"`{recipe.method}`"
    card = ModelCard(
        id=recipe.victim,
        network=network,
        dataset=recipe.dataset,
        classes=train.classes,
        input_shape=train.shape,
        preprocessing=train.preprocessing,
        shots=recipe.shots,
        shots_rule="" if recipe.shots_rule == "keyed" else recipe.shots_rule,
        untrained=recipe.untrained,
        method=recipe.method,
        preset_of=preset_of,
        source=source.id if source is not None and uses_source else "",
        head="" if not uses_source else "kept" if method.keeps_head else "new",
        params=stated(method.params),
        seed=method.params.seed,
        validation_accuracy=None if accuracy is None else round(accuracy, 6),
        weights_notes=_notes_of(source) if source is not None and uses_source else (),
        versions=versions() | versions_of_network(network),
        text=f"# {recipe.victim}\n\nTrained by transferbench with {means} on `{recipe.dataset}`{origin}",
    )
    return trained.network.model, card, trained


def _notes_of(source: Victim) -> tuple[str, ...]:
    """What was chosen when the source's file was read, for the card of what was trained from it."""
    return tuple(f"source {source.id}: {note}" for note in source.card.weights_notes)
