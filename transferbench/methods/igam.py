"""IGAM: match the input gradients of a fine-tuned robust teacher, without adversarial training.

Paper: Chan et al. 2020, "What it thinks is important is important" (CVPR), IGAM_CVPR2020.
Loss: CE; in the last eighth of the steps also - beta L_D + gamma times the sum over the batch and all pixels of
(J_student - J_teacher)^2, with input gradients J and a discriminator's loss L_D.
Phases: one, all weights of a fresh student; a teacher of another resolution sees resized images.
Options: `disc`, `disc_adam`, `teacher_trains` and `teacher_noise` are the code's flags; `teacher_first=true` and
`teacher_bn=batch` are what it does.
Deviations: by default the teacher's batch norm uses running statistics, the code's those of each batch; it is trained
on the student's first batches, the code's on another order of the images; a student is tested with running statistics
unless its network is `batch-statistics:...`, as all of the code's are; the discriminator starts from PyTorch's default
initialisation.

J = d p[y] / d x is the input gradient of the softmax probability of the true class, pixels on the 0..255 scale. L_D is
the two-class cross-entropy of a discriminator that tells the two kinds of gradients apart (student 0, teacher 1), each
less its mean and divided by its L2 norm; the student maximises it, the discriminator minimises it with a step of its
own every `disc_update_steps`. The teacher is the robust source with a new head, trained with Adam on clean target
images while the student is still on cross-entropy alone.

The student is in train mode, so J is the gradient of the sum of the batch's probabilities: through batch norm a row's
image moves the other rows' probabilities too, and this is part of J, here as in the code. Its gradient w.r.t. the
weights is the exact second derivative (tests/methods/test_igam_gradient.py), and that of the code's network in
TensorFlow with its fused batch norm. Batch norm from tf.nn.moments gives another, off by a third in single parameters:
moments stops the gradient at the mean inside the variance, so a second derivative lacks the mean's part.

For a teacher of another resolution the gradient is taken w.r.t. the target's own pixels (the up-resize variant); the
student takes images as they are, in the teacher's architecture unless another is given.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from transferbench.base import keyed_random, schedules
from transferbench.base.errors import InputError
from transferbench.base.schedules import Schedule
from transferbench.methods import (
    BaseMethod,
    BaseParams,
    Batch,
    Decay,
    Epochs,
    Network,
    NotNegative,
    Padding,
    Positive,
    batch_norms,
    decay_of,
)
from transferbench.models import heads
from transferbench.models.features import record_features
from transferbench.threats import LinfBall

VERSION = 2

_ADAM_LR = 1e-3


@dataclass(frozen=True)
class Params(BaseParams):
    """run_IGAM_c10toc100.sh: 320000 steps of 32, the last 40000 with matching; beta 2, gamma 10, lr .1/.01/.001,
    weight decay 2e-4 on convolutions and linear layers alone (of student and discriminator), crops of images padded by
    2, discriminator of 5 layers from 16 channels, input noise U(-8/255, 8/255).

    The up-resize script (TinyImageNet to CIFAR-10) has beta 5, 4 layers from 8 channels and no noise. `gamma` is for
    gradients on the 0..255 scale, summed over the batch. `input_noise=0` is no noise. `disc`: `conv`, `pool` (the last
    maps are averaged, --disc_avg_pool_hw) or `linear` (three linear layers, --only_fully_connected). `disc_adam`: Adam
    at .001 instead of the student's SGD (no --same_optimizer). `teacher_trains=all`: --finetune_whole_model, with the
    weight decay on the source's layers; the new head has none.

    `teacher_noise`: uniform noise on the images that the teacher is trained on (--finetune_img_random_pert: 8/255),
    apart from `input_noise`, that of the student and of the matched gradients. `teacher_first`: the teacher is trained
    before the student's first step, which is another result only where matching begins before it is done; this part is
    not resumed but begun again. `teacher_bn=batch`: its batch norms use each batch's statistics, when it is trained and
    when gradients are matched. `teacher_steps=0`: the source is a teacher already (its classes are the target's), as
    from --only_finetune.

    `teacher_batch_size`: the teacher steps whenever so many images have come in the student's batches; what is left of
    its `teacher_steps` when matching begins is done while it goes on. `disc_bn_eps` is what the discriminator's batch
    norm adds to the variance. `disc_order=after`: the discriminator steps after the student, on the gradients of the
    student that has just been changed (sep_opt_version 1); `before`: before it, on the gradients of the student's loss.
    """

    steps: Positive = 320_000
    batch_size: Positive = 32
    lr: NotNegative = 0.1
    weight_decay: NotNegative = 2e-4
    schedule: Schedule = "piecewise-constant"
    decay: Decay = "weights"
    crop_padding: Padding = 2
    beta: NotNegative = 2.0
    gamma: NotNegative = 10.0
    match_share: Annotated[float, Field(gt=0, le=1)] = 0.125
    teacher_steps: Annotated[int, Field(ge=0)] = 4700
    teacher_batch_size: Positive = 64
    teacher_lr: NotNegative = 1e-3
    disc_update_steps: Positive = 5
    disc_layers: Positive = 5
    disc_channels: Positive = 16
    disc: Literal["conv", "pool", "linear"] = "conv"
    disc_bn_eps: Annotated[float, Field(gt=0)] = 1e-3
    disc_order: Literal["after", "before"] = "after"
    disc_adam: bool = False
    teacher_trains: Literal["head", "all"] = "head"
    input_noise: str = "8/255"
    teacher_noise: str = "0"
    teacher_first: bool = False
    teacher_bn: Literal["running", "batch"] = "running"

    def __post_init__(self) -> None:
        """InputError where a noise is neither 0 nor a radius."""
        _noise_size(self.input_noise)
        _noise_size(self.teacher_noise)


def _noise_size(text: str) -> float:
    """The size of a uniform noise, 0 for none."""
    return 0.0 if text == "0" else LinfBall.parse(text).radius


class Discriminator(nn.Module):
    """Input gradients [B, C, H, W] -> logits [B, 2] of the classes 0 (student) and 1 (teacher).

    Layers of [4x4 convolution of stride 2, batch norm, leaky ReLU .1] with doubling channels, then a linear layer. The
    design `pool` averages the last maps before it; `linear` has linear layers of `channels`, `channels` and half as
    many units in place of the convolutions.
    """

    def __init__(
        self, shape: tuple[int, ...], layers: int, channels: int, design: str = "conv", bn_eps: float = 1e-3
    ) -> None:
        super().__init__()
        self.design, inputs, side = design, shape[0], shape[1]
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        if design == "linear":
            inputs = math.prod(shape)
            for outputs in (channels, channels, max(channels // 2, 1)):
                self.layers.append(nn.Linear(inputs, outputs))
                self.norms.append(nn.BatchNorm1d(outputs, eps=bn_eps))
                inputs = outputs
            self.head = nn.Linear(inputs, 2)
            return
        for depth in range(layers):
            outputs = channels * 2**depth
            self.layers.append(nn.Conv2d(inputs, outputs, 4, 2))
            self.norms.append(nn.BatchNorm2d(outputs, eps=bn_eps))
            inputs, side = outputs, -(-side // 2)
        self.head = nn.Linear(inputs if design == "pool" else inputs * side * side, 2)

    def forward(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        # tf.math.l2_normalize: a gradient of norm below 1e-6 is multiplied by 1e6, as is what the student gets back.
        x = flat / flat.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        x = x if self.design == "linear" else x.view_as(gradient)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x if self.design == "linear" else _pad_same(x))), 0.1)
        return self.head(x.mean((2, 3)) if self.design == "pool" else x.flatten(1))


def _pad_same(x: Tensor) -> Tensor:
    """TensorFlow's "SAME" padding for a 4x4 kernel of stride 2: the output has half the side, rounded up."""
    total = [max((-(-side // 2) - 1) * 2 + 4 - side, 0) for side in (x.shape[3], x.shape[2])]
    return F.pad(x, [pad for each in total for pad in (each // 2, each - each // 2)])


class Method(BaseMethod[Params]):
    """Trains a student, a teacher (the source with a new head) and a discriminator of their input gradients."""

    @property
    def passes_per_step(self) -> float:
        return 3.0

    def network(self, source: str, requested: str) -> str:
        return requested or re.sub(r"^resized:\d+-\d+:", "", source)

    def student(self, source: Network | None, fresh: Callable[[], Network], num_classes: int) -> Network:
        assert source is not None
        student = fresh()
        model = copy.deepcopy(source.model).eval().requires_grad_(False)
        if not self.keeps_head:
            heads.linear(model, source.layers, num_classes)
        self.teacher = Network(model, source.layers)
        self.further_networks = [self.teacher]
        if not self.params.teacher_steps and not self.keeps_head:
            raise InputError(
                "teacher_steps=0: the source is no teacher of the target's classes; train one on the target first, or "
                "leave teacher_steps out"
            )
        if self.params.teacher_bn == "batch":
            for norm in batch_norms(model).values():
                norm.train()
        whole = self.params.teacher_trains == "all"
        (model if whole else model.get_submodule(source.layers.head)).requires_grad_(True)
        # Only what the source had decays: the code sums the decay up before it adds the head.
        groups = [
            {
                "params": [parameter],
                "weight_decay": 0.0 if self.in_head(self.teacher, name) else decay_of(parameter, self.params),
            }
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]
        self.teacher_optimiser = torch.optim.Adam(groups, self.params.teacher_lr)
        self.teacher_done = 0
        self.pending: tuple[Tensor, Tensor] | None = None
        self.discriminator: Discriminator | None = None
        self.checkpointed: dict[str, Any] | None = None
        # The discriminator is built with the first batch and with a random state of its own.
        self.disc_seed = keyed_random.stream("igam discriminator", self.params.seed)
        return student

    def prepare(self, student: Network, source: Network | None, batches: Epochs) -> None:
        if not self.params.teacher_first:
            return
        for batch in itertools.chain.from_iterable(batches(number) for number in itertools.count()):
            if self.teacher_done >= self.params.teacher_steps:
                return
            self.teacher.model.to(batch.x.device)
            self._train_teacher(batch)

    def loss(self, student: Network, source: Network | None, batch: Batch) -> dict[str, Tensor]:
        params, x = self.params, self._noisy(batch)
        self.teacher.model.to(x.device)
        if self.teacher_done < params.teacher_steps:
            self._train_teacher(batch)
        if not self._matches(batch):
            return {"ce": self.cross_entropy(student.model(x), batch.y)}
        logits, student_gradient = _gradient(student.model, x, batch.y, create_graph=True)
        _, teacher_gradient = _gradient(self.teacher.model, x, batch.y, create_graph=False)
        discriminator = self._discriminator(x)
        if params.disc_order == "before" and batch.step % params.disc_update_steps == 0:
            self._train_discriminator(student_gradient.detach(), teacher_gradient, batch.step)
        discriminator.requires_grad_(False)
        return {
            "ce": self.cross_entropy(logits, batch.y),
            "discriminator": -params.beta * _discriminator_loss(discriminator, student_gradient, teacher_gradient),
            "gradients": params.gamma * (student_gradient - teacher_gradient).square().sum(),
        }

    def after_step(self, student: Network, batch: Batch) -> None:
        params = self.params
        if params.disc_order == "after" and self._matches(batch) and batch.step % params.disc_update_steps == 0:
            x = self._noisy(batch)
            _, student_gradient = _gradient(student.model, x, batch.y, create_graph=False)
            _, teacher_gradient = _gradient(self.teacher.model, x, batch.y, create_graph=False)
            # The code's step number has been increased by the student's step.
            self._train_discriminator(student_gradient, teacher_gradient, min(batch.step + 1, params.steps - 1))

    def _matches(self, batch: Batch) -> bool:
        """Whether gradients are matched at this step."""
        return batch.step >= round(self.params.steps * (1 - self.params.match_share))

    def memory(self) -> dict[str, Any]:
        discriminator = self.discriminator
        return {
            "teacher": self.teacher.model.state_dict(),
            "teacher optimiser": self.teacher_optimiser.state_dict(),
            "teacher done": self.teacher_done,
            "teacher pending": self.pending,
            "discriminator": None if discriminator is None else discriminator.state_dict(),
            "discriminator optimiser": None if discriminator is None else self.disc_optimiser.state_dict(),
        }

    def recall(self, memory: dict[str, Any]) -> None:
        self.teacher.model.load_state_dict(memory["teacher"])
        self.teacher_optimiser.load_state_dict(memory["teacher optimiser"])
        self.teacher_done, self.pending = memory["teacher done"], memory["teacher pending"]
        # The discriminator is built with the first batch, whose shape it needs.
        self.checkpointed = memory if memory["discriminator"] is not None else None

    def _noisy(self, batch: Batch) -> Tensor:
        """The student's images with uniform noise, inside [0,1]."""
        return _with_noise(batch.x, batch.noise, _noise_size(self.params.input_noise))

    def _train_teacher(self, batch: Batch) -> None:
        """The steps on the teacher for which these images complete a batch; the rest of them is kept in `pending`."""
        keys = keyed_random.row_keys(keyed_random.stream("igam teacher noise", self.params.seed), batch.noise)
        x, y = _with_noise(batch.x, keys, _noise_size(self.params.teacher_noise)), batch.y
        if self.pending is not None:
            x, y = (torch.cat([kept.to(new.device), new]) for kept, new in zip(self.pending, (x, y), strict=True))
        size = self.params.teacher_batch_size
        while len(x) >= size and self.teacher_done < self.params.teacher_steps:
            self._step_teacher(x[:size], y[:size])
            self.teacher_done += 1
            x, y = x[size:], y[size:]
        self.pending = (x, y) if len(x) and self.teacher_done < self.params.teacher_steps else None

    def _step_teacher(self, x: Tensor, y: Tensor) -> None:
        """One step of Adam on the teacher's head with frozen features, or on the whole teacher."""
        if self.params.teacher_trains == "all":
            loss = F.cross_entropy(self.teacher.model(x), y)
        else:
            with torch.no_grad(), record_features(self.teacher.model, self.teacher.layers) as features:
                self.teacher.model(x)
            feature = features.penultimate[self.teacher.layers.head]
            loss = F.cross_entropy(self.teacher.model.get_submodule(self.teacher.layers.head)(feature), y)
        self.teacher_optimiser.zero_grad()
        loss.backward()
        self.teacher_optimiser.step()

    def _discriminator(self, x: Tensor) -> Discriminator:
        """The discriminator, built for images of this shape at the first call."""
        if self.discriminator is None:
            params = self.params
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.disc_seed)
                shape = tuple(x.shape[1:])
                discriminator = Discriminator(
                    shape, params.disc_layers, params.disc_channels, params.disc, params.disc_bn_eps
                )
            self.discriminator = discriminator.to(x.device).train()
            groups = [
                {"params": [parameter], "weight_decay": decay_of(parameter, params)}
                for parameter in self.discriminator.parameters()
            ]
            self.disc_optimiser: torch.optim.Optimizer
            if params.disc_adam:
                self.disc_optimiser = torch.optim.Adam(groups, _ADAM_LR)
            else:
                self.disc_optimiser = torch.optim.SGD(groups, params.lr, momentum=params.momentum)
            if self.checkpointed is not None:
                self.discriminator.load_state_dict(self.checkpointed["discriminator"])
                self.disc_optimiser.load_state_dict(self.checkpointed["discriminator optimiser"])
                self.checkpointed = None
        return self.discriminator

    def _train_discriminator(self, student: Tensor, teacher: Tensor, step: int) -> None:
        """One optimiser step on the two kinds of gradients; SGD has the student's learning rate at the step."""
        discriminator = self._discriminator(student).requires_grad_(True)
        for group in () if self.params.disc_adam else self.disc_optimiser.param_groups:
            group["lr"] = self.params.lr * schedules.factor(self.params.schedule, step, self.params.steps)
        loss = _discriminator_loss(discriminator, student, teacher)
        self.disc_optimiser.zero_grad()
        loss.backward()
        self.disc_optimiser.step()


def _with_noise(x: Tensor, keys: Tensor, size: float) -> Tensor:
    """The images with noise U(-size, size) by their keys, inside [0,1]; as they are where the size is 0."""
    if not size:
        return x
    return (x + size * (2 * keyed_random.uniform(keys, tuple(x.shape[1:])) - 1)).clamp(0, 1)


def _gradient(model: nn.Module, x: Tensor, y: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
    """(logits [B, K], input_gradient [B, ...]) of a network at x."""
    point = x.detach().requires_grad_()
    # The fused kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
        logits = model(point)
    return logits, input_gradient(logits, point, y, create_graph)


def input_gradient(logits: Tensor, x: Tensor, y: Tensor, create_graph: bool) -> Tensor:
    """[B, ...]: the gradient of each row's softmax probability of its label, w.r.t. pixels on the 0..255 scale."""
    right = logits.softmax(1).gather(1, y[:, None]).sum()
    (gradient,) = torch.autograd.grad(right, x, create_graph=create_graph)
    return gradient / 255


def _discriminator_loss(discriminator: Discriminator, student: Tensor, teacher: Tensor) -> Tensor:
    """The discriminator's mean two-class cross-entropy over the student's and the teacher's gradients."""
    classes = torch.cat([torch.zeros(len(student)), torch.ones(len(teacher))]).long().to(student.device)
    return F.cross_entropy(discriminator(torch.cat([student, teacher])), classes)
