"""DELTA: keep the source's feature maps stage by stage, all channels alike or weighted by attention.

Paper: Chin et al. 2020 (arXiv:2002.02998), the baseline in Renofeation's code; with `attention` the original, Li et al.
2019 (arXiv:1901.09229).
Loss: CE + beta/2 ||head||^2 + lambda_f times the sum over stages of the mean over all elements of
(F_student - F_source)^2.
Phases: one, all weights.
Options: `attention=true` weighs the channels of every stage; `feat_layers`, `dropout` and `l2sp_lmda` are the code's
flags.
Deviations: the rise of the loss behind the attention is measured on `attention_batches` batches, the code uses the
whole training set; channels are a stage's outputs, the code puts the filters of its last convolution to 0.

With `attention` the last part of the loss is, summed over the batch,

    lambda_f/2 * sum over stages, images, channels of C w_c ||F_student - F_source||^2 / (H W)

The weights w of a stage's C channels say how much the source needs each: its loss on the target rises by r_c when
channel c is put to 0 (with a head trained on its frozen features), and w = softmax of (r - mean r) / (5 std r).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.methods import BaseMethod, BaseParams, Batch, Epochs, Network, NotNegative, Positive
from transferbench.models.features import changed_channels, record_features, spatial_dropout, submodule

VERSION = 3

NEEDS = {"delta": "named stages"}

_TEMPERATURE = 5.0


@dataclass(frozen=True)
class Params(BaseParams):
    """DELTA.sh for Flower102: lr .005, weight decay 1e-4, `feat_lmda` (lambda_f) .1; beta .01 always. An epoch's last
    batch is smaller.

    The original with `attention` has lambda_f .01 (its alpha) and beta .01. Before the channels are weighted, a head is
    trained for `attention_steps` at learning rate .01.

    `feat_layers` are the digits of the stages that are matched (`1234` are all of a ResNet, `12345` of MobileNetV2).
    `dropout` is the spatial dropout after every stage, also those that are not matched; features are taken before it.
    `l2sp_lmda` adds l2sp's pull of all weights, the new head's too, to where they were when the network was made; the
    code then sets the optimiser's weight decay to 0, here it must be set to 0.
    """

    lr: NotNegative = 5e-3
    partial_batches: bool = True
    feat_lmda: NotNegative = 0.1
    beta: NotNegative = 1e-2
    attention: bool = False
    attention_steps: Positive = 500
    attention_batches: Positive = 8
    feat_layers: Annotated[str, Field(pattern=r"^(all|[1-9]+)$")] = "all"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    l2sp_lmda: NotNegative = 0.0

    def __post_init__(self) -> None:
        """InputError for a stage named twice, and for a weight decay beside l2sp_lmda."""
        if self.feat_layers != "all" and len(set(self.feat_layers)) < len(self.feat_layers):
            raise InputError(f"feat_layers={self.feat_layers}: each stage once, as in 1234 or 34")
        if self.l2sp_lmda and self.weight_decay:
            raise InputError(
                f"l2sp_lmda={self.l2sp_lmda}: Renofeation's code leaves the weight decay out then: set weight_decay=0 "
                f"(it is {self.weight_decay})"
            )


class Method(BaseMethod[Params]):
    """Fine-tuning with a penalty on the distance of the stages' feature maps from the source's."""

    extends = "finetune"

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        if source is not None and not source.layers.stages:
            raise InputError("delta needs the stages of the source network, and this one names none")
        self.channels: list[Tensor] = []
        if source is not None:
            self._matched(source)
        student = super().student(source, fresh, num_classes)
        self.start = start_of(student.model) if self.params.l2sp_lmda else {}
        return student

    def _matched(self, network: Network) -> tuple[str, ...]:
        """The names of the stages that are matched. InputError where the network has fewer."""
        stages, chosen = network.layers.stages, self.params.feat_layers
        if chosen == "all":
            return stages
        if int(max(chosen)) > len(stages):
            raise InputError(f"feat_layers={chosen}: the source network has {len(stages)} stages")
        return tuple(stages[int(digit) - 1] for digit in sorted(chosen))

    def prepare(self, student: Network, source: Network | None, batches: Epochs) -> None:
        if self.params.attention:
            assert source is not None
            self.channels = self._attention(student, source, batches)

    def memory(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def recall(self, memory: dict[str, Any]) -> None:
        self.channels = memory["channels"]

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        assert source is not None
        stages = self._matched(student)
        with (
            spatial_dropout(student.model, student.layers, self.params.dropout),
            record_features(student.model, student.layers, stages) as student_features,
        ):
            logits = student.model(batch.x)
        with torch.no_grad(), record_features(source.model, source.layers, stages) as source_features:
            source.model(batch.x)
        pairs = [(student_features.stages[name], source_features.stages[name]) for name in stages]
        if self.params.attention:
            distances = [
                0.5 * _weighted_distance(own, target, weights.to(own.device))
                for (own, target), weights in zip(pairs, self.channels, strict=True)
            ]
        else:
            distances = [F.mse_loss(own, target) for own, target in pairs]
        terms = {
            "ce": self.cross_entropy(logits, batch.y),
            "head": 0.5 * self.params.beta * linear_norm(student.model),
            "features": self.params.feat_lmda * torch.stack(distances).sum(),
        }
        if self.start:
            terms["start"] = self.params.l2sp_lmda * squared_distance(student.model, self.start)
        return terms

    def _attention(self, student: Network, source: Network, batches: Epochs) -> list[Tensor]:
        """The weights [C] of every stage's channels, with a head that is trained on the source's frozen features."""
        probe = Network(copy.deepcopy(student.model).eval().requires_grad_(False), source.layers)
        # A re-initialised student does not have the source's trunk.
        trunk = {name: value for name, value in source.model.state_dict().items() if not self.in_head(source, name)}
        probe.model.load_state_dict(trunk, strict=False)
        head = submodule(probe.model, probe.layers.head).requires_grad_(True)
        optimiser = torch.optim.SGD(head.parameters(), 1e-2, momentum=0.9)
        endless = itertools.chain.from_iterable(batches() for _ in itertools.count())
        for batch in itertools.islice(endless, self.params.attention_steps):
            with torch.no_grad(), record_features(probe.model, probe.layers) as features:
                probe.model(batch.x)
            loss = F.cross_entropy(head(features.penultimate[probe.layers.head]), batch.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        sample = list(itertools.islice(batches(), self.params.attention_batches))
        return [attention(_loss_increases(probe, stage, sample)) for stage in self._matched(probe)]


def attention(increases: Tensor) -> Tensor:
    """[C] -> [C]: the channels' weights, positive with sum 1, from the increases of the loss without each channel."""
    spread = increases.std(correction=0)
    return ((increases - increases.mean()) / (spread if float(spread) > 0 else 1.0) / _TEMPERATURE).softmax(0)


def _loss_increases(network: Network, stage: str, batches: list[Batch]) -> Tensor:
    """float32 [C]: the increase of the summed loss when a channel of the stage's output is set to 0."""
    removed: int | None = None
    channels = 0

    def without_removed(output: Tensor) -> Tensor:
        nonlocal channels
        channels = output.shape[1]
        if removed is None:
            return output
        mask = torch.ones(channels, device=output.device)
        mask[removed] = 0
        return output * mask.view(1, -1, *[1] * (output.dim() - 2))

    def remove_channel(_: nn.Module, __: Any, output: Any) -> Any:
        return changed_channels(output, network.layers, without_removed)

    def total() -> float:
        with torch.no_grad():
            return sum(float(F.cross_entropy(network.model(b.x), b.y, reduction="sum")) for b in batches)

    hook = submodule(network.model, stage).register_forward_hook(remove_channel)
    try:
        full, increases = total(), []
        for channel in range(channels):
            removed = channel
            increases.append(total() - full)
    finally:
        hook.remove()
    return torch.tensor(increases)


def _weighted_distance(features: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The sum over images and channels of C w_c times the mean squared difference over positions."""
    distances = (features - target).flatten(2).square().mean(2)
    return (len(weights) * weights * distances).sum()


def start_of(model: nn.Module, without: str = "\0") -> dict[str, Tensor]:
    """Copies of the parameters by name, but for those whose name begins with `without`."""
    return {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if not name.startswith(without)
    }


def squared_distance(model: nn.Module, start: dict[str, Tensor]) -> Tensor:
    """The sum of squares of the differences of the parameters in `start` from their values there."""
    weights = dict(model.named_parameters())
    distances = [(weights[name] - w0.to(weights[name].device)).square().sum() for name, w0 in start.items()]
    return torch.stack(distances).sum()


def linear_norm(model: nn.Module) -> Tensor:
    """The sum of squares of the weights and biases of all linear layers."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return torch.stack([parameter.square().sum() for module in linear for parameter in module.parameters()]).sum()
