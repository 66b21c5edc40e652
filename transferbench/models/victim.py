"""A victim: a network in eval mode that maps [0,1] pixels to logits, with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.versions import versions_of_network
from transferbench.models import heads, networks, weights
from transferbench.models.cards import ModelCard
from transferbench.models.class_names import first_difference
from transferbench.models.features import Layers
from transferbench.models.networks import normalised, resized
from transferbench.models.networks.normalised import Normalisation, Normalised


@dataclass(frozen=True)
class Victim:
    """`model` is in eval mode and includes the normalisation; `sha256` is the hash of the weights as loaded.

    `layers` names the modules whose outputs are the features.
    """

    card: ModelCard
    model: nn.Module
    layers: Layers
    sha256: str

    @classmethod
    def frozen(cls, card: ModelCard, model: nn.Module, layers: Layers, sha256: str) -> Victim:
        """The victim with the model in eval mode and without parameter gradients, and the hash on its card."""
        return cls(card.model_copy(update={"sha256": sha256}), model.eval().requires_grad_(False), layers, sha256)

    @classmethod
    def from_state(cls, card: ModelCard, state: weights.StateDict, path: Path, sha256: str) -> Victim:
        """The card's network with the tensors read from `path`. InputError when names or shapes do not match."""
        built = networks.build_for_weights(card.network, len(card.classes))
        if card.head == "new":
            heads.as_new(built.model, built.layers, len(card.classes))
        try:
            weights.load_strictly(built.model, state, path)
        except InputError as error:
            raise InputError(f"{error}{_of_other_versions(card)}") from None
        networks.check_loaded(card.network, built.model, str(path))
        return cls.frozen(card, built.model, built.layers, sha256)

    @classmethod
    def from_file(cls, card: ModelCard, file: weights.WeightsFile, entry: str | None = None) -> Victim:
        """The card's network with the state dict of a file of another project that has its names (weights.select).

        The card gets the entry in its id where the file has several (`file:net@state_dict_ema`), and in `weights_notes`
        what was chosen, taken off the names and left out. A normalisation of the file's own becomes a part of the
        card's network (models/networks/normalised.py). InputError when names or shapes do not match.
        """
        built = networks.build(card.network, len(card.classes))
        selection = weights.select(file, built.model, entry)
        state, network, notes = selection.state, card.network, selection.notes
        if selection.normalisation is not None:
            own = Normalisation.of_tensors(*selection.normalisation)
            try:
                network, note = normalised.of_file(card.network, built.model, own)
            except InputError as error:
                raise InputError(f"weights {weights.shown(file.path)}: {error}") from None
            notes = (*notes, note)
            if network != card.network and not isinstance(built.model, Normalised):
                state = {f"model.{name}": tensor for name, tensor in state.items()}
        _check_beside(network, built.model, selection, file.path)
        before = card.weights_notes
        if network != card.network:
            # What the id of the network left open is stated now.
            before = tuple(
                note for note in (*before, networks.unstated(network)) if note != networks.unstated(card.network)
            )
        id = f"{card.id}@{file_stem(selection.place)}" if selection.place else card.id
        update = {"id": id, "network": network, "weights_notes": tuple(filter(None, (*before, *notes)))}
        return cls.from_state(card.model_copy(update=update), state, file.path, selection.sha256)

    @property
    def id(self) -> str:
        return self.card.id

    @property
    def num_classes(self) -> int:
        return len(self.card.classes)

    def check_fits(self, dataset: str, shape: tuple[int, ...], classes: Sequence[str]) -> None:
        """InputError unless the data set's images have the victim's shape [C, H, W] and its classes in its order.

        How names are compared is in models/class_names.py.
        """
        if tuple(shape) != tuple(self.card.input_shape):
            raise InputError(
                f"{self.id} takes images of shape {tuple(self.card.input_shape)}, {dataset} has {tuple(shape)}"
                f"{_of_another_side(tuple(self.card.input_shape), tuple(shape))}"
            )
        if len(classes) != self.num_classes:
            raise InputError(
                f"{self.id} has {self.num_classes} classes, {dataset} has {len(classes)}{_of_subset(dataset)}"
            )
        own_data, given = DatasetId.parse(self.card.dataset), DatasetId.parse(dataset)
        # Names that are numbers would pass for numberings: those of one data set are the same names everywhere.
        if own_data.base == given.base and own_data != given and tuple(classes) != self.card.classes:
            raise InputError(f"{self.id} was trained on the classes of {own_data}, those of {given} are others")
        label = first_difference(self.card.classes, classes)
        if label is not None:
            own, name = self.card.classes[label], classes[label]
            raise InputError(
                f"class {label} of {dataset} is {name!r}, {self.id} knows it as {own!r}: labels would be wrong; "
                "bring the names (of the folders) into the victim's order"
            )

    def to(self, device: torch.device | str) -> Victim:
        """The victim with its network on the device."""
        return Victim(self.card, self.model.to(device), self.layers, self.sha256)


def _check_beside(network: str, model: nn.Module, selection: weights.Selection, path: Path) -> None:
    """InputError where the file has another normalisation beside its weights than the network's."""
    for place, constants in selection.beside:
        if all(0 < value < float("inf") for value in constants.std.tolist()):
            try:
                normalised.check_beside(network, model, place, Normalisation.of_tensors(*constants))
            except InputError as error:
                raise InputError(f"weights {weights.shown(path)}: {error}") from None


def _of_another_side(own: tuple[int, ...], given: tuple[int, ...]) -> str:
    """What to do with square images of another side."""
    if len(own) != 3 or len(given) != 3 or own[0] != given[0] or given[1] != given[2]:
        return ""
    return f": --model resized:{given[1]}:<model> resizes them inside the network"


def _of_other_versions(card: ModelCard) -> str:
    """What a victim needs whose network has other names in the installed version of the package that builds it."""
    installed = versions_of_network(card.network)
    needed = [
        f"{name} {card.versions[name]} (installed is {version})"
        for name, version in installed.items()
        if card.versions.get(name, version) != version
    ]
    return f"; it was trained with {' and '.join(needed)}" if needed else ""


def _of_subset(dataset: str) -> str:
    """Why a network of more classes is not evaluated on a subset of them: whether its other logits count is not for us
    to choose."""
    base, items = DatasetId.parse(dataset)
    if not items:
        return ""
    return f": evaluate it on {base}, or train a head for the subset (whether its other logits count would be a choice)"


def fitted(victim: Victim, shape: tuple[int, ...]) -> Victim:
    """The victim for square images of shape [C, H, W]: unchanged, or with a resizing layer in front of its network.

    InputError when the channels differ, or an image is not square. The layer is models/networks/resized.py.
    """
    own = tuple(victim.card.input_shape)
    if own == tuple(shape):
        return victim
    if len(own) != 3 or len(shape) != 3 or own[0] != shape[0] or own[1] != own[2] or shape[1] != shape[2]:
        raise InputError(
            f"{victim.id} takes images of shape {own}, not {tuple(shape)}: no resizing makes these of those"
        )
    model, layers = resized.wrap(victim.model, victim.layers, own[1])
    network = f"resized:{shape[1]}-{own[1]}:{victim.card.network}"
    card = victim.card.model_copy(update={"network": network, "input_shape": tuple(shape), "preprocessing": ""})
    return Victim(card, model.eval(), layers, victim.sha256)
