"""E-AT's CIFAR-10 networks, `pretr_Linf`, `pretr_L2`, `pretr_L1`, from robust-finetuning's own files."""

from __future__ import annotations

from pathlib import Path

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, weights
from transferbench.models.catalogue import robust_finetuning
from transferbench.models.victim import Victim

IDS = {
    "pretr_Linf": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in Linf",
    "pretr_L2": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in L2",
    "pretr_L1": "CIFAR-10 PreActResNet-18 of E-AT, adversarially trained in L1",
}


def load(id: str, model_dir: Path | None, download: bool = False) -> Victim:
    card = robust_finetuning.card(id)
    assert card is not None
    path = (model_dir or Path("models")) / card.weights
    if not path.is_file():
        raise InputError(
            f"model {id}: there are no weights at {path} (--model-dir); take {card.weights} from the page of "
            "github.com/fra31/robust-finetuning" + ("; it cannot be downloaded by --download" if download else "")
        )
    built = networks.build(card.network, len(card.classes))
    state = {name: tensor for name, tensor in weights.read(path).items() if "model_preact_hl1." not in name}
    weights.load_strictly(built.model, weights.match_names(built.model, state), path)
    digest = sha256_of(path)
    return Victim(
        card.model_copy(update={"sha256": digest}), built.model.eval().requires_grad_(False), built.layers, digest
    )
