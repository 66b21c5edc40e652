"""`import-tf1`: a checkpoint of the papers' TensorFlow code as a folder that `eval` and `train --source` take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from transferbench import data
from transferbench.base import dataset_id, names
from transferbench.base.errors import FaultError, InputError
from transferbench.models import networks, trained, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import classes
from transferbench.models.weights.tf1 import madry_variables, tensorflow_logits
from transferbench.models.weights.tf1.checkpoint import TensorFlowCheckpoint

NETWORKS = ("madry-wrn-32-10", "igam-wrn-32-10")
"""The networks whose variables are known: LwF's, Madry's and IGAM's teachers are the first, IGAM's students the
second."""

BATCH_STATISTICS = "batch-statistics:"
"""Before a network that is evaluated on each batch's own statistics, as IGAM evaluates students and teachers."""

_IMAGES, _CLOSE = 4, 1e-3
"""Images on which logits are compared, and the largest difference as a share of their range."""


@dataclass(frozen=True)
class ImportRequest:
    """`checkpoint`: a folder, a file of the checkpoint, or their common name. `dataset`: what it was trained on, for
    the names of its classes. `head`: the classifier where the checkpoint has two."""

    checkpoint: Path
    network: str
    dataset: str
    out: Path
    head: str | None = None


@dataclass(frozen=True)
class Imported:
    """The card that was written, the classifier that was taken, and the largest difference of a logit from
    TensorFlow's as a share of their range; None where TensorFlow is not installed."""

    card: ModelCard
    head: str
    difference: float | None


def import_tf1(request: ImportRequest) -> Imported:
    """Read a checkpoint, compare logits, write model.safetensors and the card.

    InputError for a network whose variables are unknown, a damaged or another checkpoint, an existing folder;
    FaultError where logits differ from TensorFlow's.
    """
    inner = request.network.removeprefix(BATCH_STATISTICS)
    if inner not in NETWORKS:
        raise InputError(
            f"--network {request.network}: the variables of {' and '.join(NETWORKS)} are known, also behind "
            f"{BATCH_STATISTICS}"
        )
    dataset_id.find(request.dataset)
    if request.out.exists() and (not request.out.is_dir() or any(request.out.iterdir())):
        raise InputError(f"--out {request.out} is there and not empty: give another folder")
    id = names.victim_name(request.out)
    checkpoint = TensorFlowCheckpoint(request.checkpoint)
    head = _head(checkpoint, request.head)
    state = madry_variables.state_dict(checkpoint, head, has_statistics=inner == request.network)
    num_classes = len(state["head.bias"])
    built = networks.build(request.network, num_classes)
    weights.load_strictly(built.model, state, checkpoint.prefix)
    difference = _difference(checkpoint, head, built.model.eval(), request.network)
    card = ModelCard(
        id=id,
        network=request.network,
        dataset=request.dataset,
        classes=_classes(request.dataset, num_classes),
        input_shape=built.input_shape,
        method="unknown",
        threats=classes.radii_of(request.dataset),
        weights_notes=(f"from the TensorFlow checkpoint {checkpoint.prefix.name}, classifier {head}",),
        text=f"# {id}\n\nThe TensorFlow checkpoint `{checkpoint.prefix.name}` as `{request.network}`.",
    )
    return Imported(trained.save(request.out, state, card), head, difference)


def _head(checkpoint: TensorFlowCheckpoint, wanted: str | None) -> str:
    heads = madry_variables.heads(checkpoint)
    if not heads:
        raise InputError(
            f"checkpoint {checkpoint.prefix}: none of its {len(checkpoint.variables)} variables is logit/DW: "
            "it is of another network"
        )
    if wanted is not None and wanted not in heads:
        raise InputError(f"--head {wanted}: the checkpoint has {', '.join(heads)}")
    if wanted is None and len(heads) > 1:
        raise InputError(f"checkpoint {checkpoint.prefix}: choose a classifier, --head {' or '.join(heads)}")
    return wanted or heads[0]


def _classes(dataset: str, count: int) -> tuple[str, ...]:
    try:
        known = classes.of(dataset)
    except KeyError:
        known = data.load(dataset, "test").classes
    if len(known) != count:
        raise InputError(f"--dataset {dataset} has {len(known)} classes, the checkpoint's classifier {count}")
    return known


def _difference(checkpoint: TensorFlowCheckpoint, head: str, model: torch.nn.Module, network: str) -> float | None:
    if not tensorflow_logits.is_available():
        return None
    images = torch.randint(0, 256, (_IMAGES, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    kind = tensorflow_logits.Kind(network.endswith("igam-wrn-32-10"), network.startswith(BATCH_STATISTICS))
    expected = torch.from_numpy(tensorflow_logits.logits(checkpoint, head, pixels, kind))
    with torch.no_grad():
        found = model(images / 255)
    difference = float((found - expected).abs().max() / (expected.max() - expected.min()))
    if not difference <= _CLOSE:
        raise FaultError(
            f"checkpoint {checkpoint.prefix}: the logits of {network} differ from TensorFlow's by {difference:.2g} "
            "of their range: the checkpoint is of another network; nothing was written"
        )
    return difference
