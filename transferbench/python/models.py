"""load_model(): any model that the command line takes."""

from __future__ import annotations

from pathlib import Path

from transferbench.models import python_function, victims
from transferbench.models.victim import Victim
from transferbench.workflows import evaluate
from transferbench.workflows.evaluate import EvaluationRequest


def load_model(
    id: str | Path,
    *,
    network: str | None = None,
    weights_key: str | None = None,
    model_dir: str | Path | None = None,
    download: bool = False,
    trust_code: bool = False,
) -> Victim:
    """The model of an id of `transferbench list models`, of a folder or a card, as `eval --model` loads it.

    Returns a victim: `model`, the network in eval mode on the CPU, which maps [0,1] pixels to logits and has no
    parameter gradients; `card`, with its classes, input shape and radii; `sha256` of the weights. `network` is the
    architecture of weights in a file (`file:<path>`), `weights_key` which of its state dicts. `model_dir` is the folder
    of weights (default: models); `download` fetches what is missing there. `trust_code` lets cards name functions of
    Python that are then called, in this process from now on.

    Raises InputError for an unknown id, and for weights that are missing, damaged or another network's.
    """
    if trust_code:
        python_function.trust_cards()
    request = EvaluationRequest(str(id), network=network, weights_key=weights_key)
    evaluate.check_model(request)
    return victims.load(request.victim, None if model_dir is None else Path(model_dir), download)
