"""Feature-distance attacks: a point whose features in the public network are far from the clean image's.

`feature-cos` maximises 1 - cosine(g(x'), g(x)), at layers with positions its mean over positions (tokens), with several
layers the mean over them. The distance has no gradient at the clean image: it starts at random. `feature-l1` (GRAT
without its universal start) maximises mean |.9999 g(x') - g(x)| of the penultimate features plus, over layers g_i drawn
at every step, the mean of mean |(.999 g_i(x') - g_i(x)) / mean|g_i(x)| * N(1, noise^2)|. Its factors below 1 give it a
gradient at the clean image.

Paper: cos: the attacks on shared representations and embeddings (arXiv:2501.12275, arXiv:2407.12588, VEAttack
arXiv:2505.17440). l1: Xia et al. 2024, GRAT (arXiv:2410.20197).
Threats: Linf.
Holds: the source's penultimate features or those of named layers; l1: penultimate and the last six stages.
Counts: the end point of each try.
Deviations: cos takes 50 steps of eps/10 with momentum 0.9, VEAttack 100 of 4/255. l1 has no universal start (UMI); its
steps of 2/255 at eps 10/255 are shares of eps; layers are the last six stages, two thirds of them drawn, where GRAT
leaves out the last tenth of a ViT's blocks first; the mean over layers is one of absolute values, because layers of
convolutional networks differ in shape; entries without a gradient stay, where GRAT's code moves them down by a quarter
step; draws are per row, not per batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from transferbench.attacks import Keys, RowState, parameters, require
from transferbench.attacks.source_attack import SignAscent, SourceNetwork, mean_size, require_positive, step_keys
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import LinfBall, Threat

IDS = {
    "feature-cos": "source only: turn the features away from the clean image's (cosine)",
    "feature-l1": "source only: move penultimate features and noise-weighted layers away in L1 (GRAT without UMI)",
}
PARAMETERS = {
    "feature-cos": {"layer": "penultimate", "n_iter": 50, "step": 0.1, "momentum": 0.9, "restarts": 1},
    "feature-l1": {"n_iter": 10, "step": 0.2, "momentum": 0.5, "noise": 0.5},
}
VERSION = 1

_LAYERS = 6
"""The stages from the end on of which `feature-l1` draws."""
_SMALLEST = 0.25
"""The smallest step of `feature-l1`, as a share of the largest."""


class FeatureCosine(SignAscent):
    id = "feature-cos"
    start_forwards = 1
    layers: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return self.layers

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        return {_clean(name): output for name, output in source(x, *self.layers).items()}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        distances = [
            1 - F.cosine_similarity(output, state[_clean(name)]).reshape(len(point), -1).mean(1)
            for name, output in source(point, *self.layers).items()
        ]
        return torch.stack(distances).mean(0)


class FeatureL1(SignAscent):
    """Its steps follow the running mean of the gradient, between a quarter of the step and the step in every entry."""

    id = "feature-l1"
    start_forwards = 1
    noise: float

    @property
    def reads(self) -> tuple[str, ...]:
        return ("penultimate", "stages")

    def begin(self, x: Tensor, source: SourceNetwork, keys: Keys) -> RowState:
        outputs = source(x, "penultimate", *source.layers("stages")[-_LAYERS:])
        return {_clean(name): output for name, output in outputs.items()}

    def loss(self, point: Tensor, source: SourceNetwork, state: RowState, copy: int) -> Tensor:
        names = source.layers("stages")[-_LAYERS:]
        outputs, keys = source(point, "penultimate", *names), step_keys(state)
        count = max(1, round(2 / 3 * len(names)))
        # Of every row the layers with the smallest numbers.
        order = keyed_random.uniform(keys, (len(names),)).argsort(dim=1, stable=True).argsort(1)
        drawn = (order < count).to(point.dtype)
        total = (0.9999 * outputs["penultimate"] - state[_clean("penultimate")]).abs().mean(1)
        for number, name in enumerate(names):
            clean = state[_clean(name)]
            moved = (0.999 * outputs[name] - clean) / mean_size(clean)
            if self.noise:
                own = keyed_random.row_keys(number, keys)
                moved = moved * (1 + self.noise * keyed_random.normal(own, tuple(moved.shape[1:])))
            total = total + drawn[:, number] * moved.abs().flatten(1).mean(1) / count
        return total

    def direction(self, gradient: Tensor) -> Tensor:
        return (gradient / mean_size(gradient)).abs().clamp(_SMALLEST, 1) * gradient.sign()


def _clean(name: str) -> str:
    return f"clean {name}"


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> SignAscent:
    """Parameters: cos: layer=penultimate, or a place, or the name of a module, several joined with +; n_iter=50,
    step=0.1 (of eps), momentum=0.9, restarts=1. l1: n_iter=10, step=0.2 (of eps), momentum=0.5, noise=0.5, the
    deviation of the layers' weights (0: none).

    InputError for a bad value, or a threat other than Linf.
    """
    ball, params = require(spec, threat, LinfBall), parameters(spec)
    require_positive(spec.id, params, "n_iter", "step")
    n_iter, step, momentum = params["n_iter"], float(params["step"]), float(params["momentum"])
    if momentum < 0 or params.get("noise", 0) < 0:
        raise InputError(f"attack {spec.id}: momentum={momentum} and noise must be at least 0")
    if spec.id == FeatureCosine.id:
        require_positive(spec.id, params, "restarts")
        cosine = FeatureCosine(ball, n_iter, step, params["restarts"], momentum)
        cosine.layers = tuple(params["layer"].split("+"))
        if not all(cosine.layers):
            raise InputError(f"attack {spec.id}: layer={params['layer']!r} must name layers, joined with +")
        return cosine
    l1 = FeatureL1(ball, n_iter, step, momentum=momentum, random_start=False)
    l1.noise = float(params["noise"])
    return l1
