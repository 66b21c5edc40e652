"""The CIFAR-10 networks that E-AT fine-tunes, adversarially trained from scratch in one norm each: `pretr_<norm>`.

Croce and Hein 2022 (arXiv:2105.12508). The weights are robust-finetuning's own files, which have no download address.
"""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.models import weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.victim import Victim

IDS = {
    "pretr_Linf": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in Linf; "
    "needs pretr_Linf.pth below --model-dir",
    "pretr_L2": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in L2; needs pretr_L2.pth below --model-dir",
    "pretr_L1": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in L1; needs pretr_L1.pth below --model-dir",
}


def card(id: str) -> ModelCard:
    """The card of `pretr_<norm>`, without a hash: the files' hashes are not published."""
    norm = id.removeprefix("pretr_")
    return ModelCard(
        id=id,
        network="preact-resnet18",
        dataset="cifar10",
        classes=classes.of("cifar10"),
        input_shape=(3, 32, 32),
        method=f"apgd-at-{norm}",
        threats=classes.radii_of("cifar10"),
        weights=f"{id}.pth",
        text=f"# {id}\n\nPreActResNet-18 with softplus, adversarially trained in {norm} on CIFAR-10: the starting "
        "point of E-AT fine-tuning (Croce and Hein 2022, arXiv:2105.12508).",
    )


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    """The network with the weights of `<model-dir>/<id>.pth`. InputError when the file is missing."""
    expected = card(id)
    path = (model_dir or Path("models")) / expected.weights
    if not os.path.isfile(path):
        raise InputError(
            f"model {id}: there are no weights at {path} (--model-dir); take {expected.weights} from the page of "
            "github.com/fra31/robust-finetuning" + ("; it cannot be downloaded by --download" if download else "")
        )
    return Victim.from_file(expected, weights.open_file(path))
