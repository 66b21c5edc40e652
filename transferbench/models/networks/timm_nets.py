"""timm's classifiers with the normalisation of their configuration: `timm:<name>[@<side>[/<patch>]]`.

The side of the images is the configuration's unless the id names one: ViTs, DeiTs and Swins are then built for it,
convolutional networks take any. A patch size is for ViTs on small images (`timm:vit_tiny_patch16_224@32/4`). Stages are
a ViT's blocks, the stages of Swin, ConvNeXt and of convolutional networks.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple

from torch import nn

from transferbench.base.errors import InputError
from transferbench.base.registry import unknown
from transferbench.models.features import Layers, behind, find_layers
from transferbench.models.networks import Built
from transferbench.models.networks.normalised import Normalisation, Normalised

NORMALISATION = "default"
IDS = {"timm": "timm:<name>[@<side>[/<patch>]], any classifier of timm: vit_tiny_patch16_224, convnext_tiny, ..."}

_ID = re.compile(r"timm:(?P<name>[\w.]+)(@(?P<side>[1-9]\d{0,3})(/(?P<patch>[1-9]\d{0,2}))?)?")


class TimmName(NamedTuple):
    """An id's parts: the name with timm's tag of a configuration, if one is named, the side and the patch size."""

    name: str
    side: int | None
    patch: int | None

    @classmethod
    def parse(cls, id: str) -> TimmName:
        """InputError for an id of another form, and for a name that timm does not have."""
        match = _ID.fullmatch(id)
        if match is None:
            raise InputError(f"network {id}: write it as timm:<name>, timm:<name>@<side> or timm:<name>@<side>/<patch>")
        side, patch = (int(match[part]) if match[part] else None for part in ("side", "patch"))
        parsed = cls(match["name"], side, patch)
        parsed.check()
        return parsed

    def check(self) -> None:
        """InputError for a name that timm does not have."""
        import timm

        name, _, tag = self.name.partition(".")
        # Only names of the installed package: timm also takes addresses of repositories and folders.
        if not timm.is_model(name):
            raise InputError(unknown("timm network", name, timm.list_models()).partition(" (there are")[0])
        tags = {full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")}
        if tag and tag not in tags:
            raise InputError(unknown(f"tag of {name}:", tag, tags))


def configuration(name: str) -> Any:
    """timm's configuration of a name, of its first tag where none is named."""
    import timm

    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def normalisation(name: str) -> Normalisation:
    """The configuration's."""
    found = configuration(name)
    return Normalisation(tuple(map(float, found.mean)), tuple(map(float, found.std)))


def build(id: str, num_classes: int) -> Built:
    """The classifier with random weights. InputError for an unknown name, and for a side or a patch size that the
    network cannot have."""
    import timm

    parsed = TimmName.parse(id)
    found = configuration(parsed.name)
    sizes: dict[str, int] = {}
    if parsed.side is not None and found.fixed_input_size:
        sizes["img_size"] = parsed.side
    if parsed.patch is not None:
        sizes["patch_size"] = parsed.patch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inner: nn.Module = timm.create_model(parsed.name, pretrained=False, num_classes=num_classes, **sizes)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not sizes:
            raise
        raise InputError(f"network {id}: timm cannot build it so ({str(error).splitlines()[0][:120]})") from None
    channels, side = int(found.input_size[0]), parsed.side or int(found.input_size[-1])
    model = Normalised(inner, normalisation(parsed.name))
    return Built(model, behind("model", layers_of(inner, found.classifier)), (channels, side, side))


def layers_of(inner: nn.Module, classifier: Any) -> Layers:
    """A timm model's layers; `classifier` is its configuration's name, or several names, of the last layer."""
    layers = find_layers(inner)
    named = classifier if isinstance(classifier, str) else ""
    modules = dict(inner.named_modules())
    head = named if isinstance(modules.get(named), nn.Linear) else ""
    last = getattr(inner, "output_fmt", None)
    return layers._replace(head=head, channels_last=layers.channels_last or str(last).endswith("NHWC"))


def unstated(id: str) -> str:
    """The normalisation, which a file of weights does not name, and the size of the images."""
    parsed = TimmName.parse(id)
    found = configuration(parsed.name)
    another = " only" if found.fixed_input_size else f" (another: timm:{parsed.name}@<side>)"
    size = f"; images of {parsed.side or found.input_size[-1]}{another}"
    return (
        f"input normalised with {normalisation(parsed.name).text} (mean/std), as timm's configuration of {parsed.name} "
        f"says (another: --network normalised:<mean>/<std>:{id}){size}"
    )
