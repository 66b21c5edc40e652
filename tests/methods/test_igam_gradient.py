"""The gradient of IGAM's loss w.r.t. the student's weights, a second derivative, against differences of numpy's loss.

Written anew without autograd: forward passes, the input gradient in closed form, the discriminator and the loss. Batch
norm runs on the statistics of the batch of 4, so that every row's input gradient depends on the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS
from torch import Tensor, nn

from transferbench import methods
from transferbench.methods import Batch, Network
from transferbench.models.features import Layers

BETA, GAMMA, B, SIDE, HIDDEN, CLASSES = 2.0, 10.0, 4, 4, 6, 3


class Net(nn.Module):
    """Linear, batch norm, leaky ReLU, linear. `detached`: the mean inside the variance counts as a constant."""

    def __init__(self, seed: int, detached: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.head = (
            nn.Linear(SIDE**2, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.Linear(HIDDEN, CLASSES),
        )
        self.detached = detached
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x.flatten(1) * 5)
        if self.detached and self.training:
            mean = z.mean(0)
            variance = (z - mean.detach()).square().mean(0)
            z = (z - mean) / (variance + self.norm.eps).sqrt() * self.norm.weight + self.norm.bias
        else:
            z = self.norm(z)
        return self.head(F.leaky_relu(z, 0.1))


def prepared(detached: bool = False) -> tuple[Any, Network, Batch]:
    """(method in float64, student in train mode, a batch) at the first step with matching."""
    given = {
        "steps": 10,
        "match_share": 1.0,
        "teacher_steps": 1,
        "input_noise": "0",
        "disc": "linear",
        "disc_channels": 6,
    }
    method: Any = methods.build("igam", {**given, "beta": BETA, "gamma": GAMMA})
    layers = Layers((), "head")
    source = Network(Net(1).double().eval(), layers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = method.student(source, lambda: Network(Net(2, detached).double(), layers), CLASSES)
    method.teacher.model.double()
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(B, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    method._discriminator(x)
    method.discriminator.double()
    student.model.train()
    return method, student, Batch(x, torch.tensor([0, 2, 1, 2]), torch.arange(B), 1)


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def leaky(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(z < 0, 0.1 * z, z), np.where(z < 0, 0.1, 1.0)


def softmax(z: np.ndarray) -> np.ndarray:
    shifted = np.exp(z - z.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def outputs(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """(logits, d sum_j p_j[y_j] / dx on the 0..255 scale), the latter by the chain rule written out."""
    z = 5 * x @ w["first.weight"].T + w["first.bias"]
    mean = z.mean(0) if train else w["norm.running_mean"]
    variance = z.var(0) if train else w["norm.running_var"]
    scale = 1 / np.sqrt(variance + 1e-5)
    unit = (z - mean) * scale
    active, slope = leaky(unit * w["norm.weight"] + w["norm.bias"])
    logits = active @ w["head.weight"].T + w["head.bias"]
    p = softmax(logits)
    of_label = p[np.arange(len(y)), y][:, None]
    onto_logits = of_label * (np.eye(CLASSES)[y] - p)
    onto_unit = onto_logits @ w["head.weight"] * slope * w["norm.weight"]
    if train:
        # Batch norm's own derivative: a row moves the mean and the variance of all.
        onto_unit = onto_unit - onto_unit.mean(0) - unit * (onto_unit * unit).mean(0)
    return logits, onto_unit * scale @ w["first.weight"] * 5 / 255


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(softmax(logits)[np.arange(len(y)), y]).mean())


def discriminator_loss(w: dict[str, np.ndarray], student: np.ndarray, teacher: np.ndarray) -> float:
    rows = np.concatenate([student, teacher])
    rows = rows - rows.mean(1, keepdims=True)
    h = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for layer in range(3):
        z = h @ w[f"layers.{layer}.weight"].T + w[f"layers.{layer}.bias"]
        z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-3)
        h, _ = leaky(z * w[f"norms.{layer}.weight"] + w[f"norms.{layer}.bias"])
    return cross_entropy(h @ w["head.weight"].T + w["head.bias"], np.array([0] * B + [1] * B))


def loss(w: dict[str, np.ndarray], disc: dict[str, np.ndarray], j_teacher: np.ndarray, batch: Batch) -> float:
    x, y = batch.x.flatten(1).numpy(), batch.y.numpy()
    logits, j_student = outputs(w, x, y, train=True)
    apart = float(np.square(j_student - j_teacher).sum())
    return cross_entropy(logits, y) - BETA * discriminator_loss(disc, j_student, j_teacher) + GAMMA * apart


def differences(detached: bool) -> dict[str, float]:
    """By parameter of the student: how far the method's gradient is from central differences, relative to its size."""
    method, student, batch = prepared(detached)
    weights, disc = numbers(student.model), numbers(method.discriminator)
    x, y = batch.x.flatten(1).numpy(), batch.y.numpy()
    _, j_teacher = outputs(numbers(method.teacher.model), x, y, train=False)
    parts = method.loss(student, None, batch)
    total = torch.stack(list(parts.values())).sum()
    assert float(total.detach()) == pytest.approx(loss(weights, disc, j_teacher, batch), rel=1e-10)
    names = [name for name, _ in student.model.named_parameters()]
    gradients = torch.autograd.grad(total, list(student.model.parameters()))
    found = {}
    for name, gradient in zip(names, gradients, strict=True):
        measured = np.zeros(gradient.shape)
        for at in np.ndindex(*gradient.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = {**weights, name: weights[name].copy()}
                moved[name][at] += step
                values.append(loss(moved, disc, j_teacher, batch))
            measured[at] = (values[0] - values[1]) / 2e-5
        # The first layer's bias has no effect: batch norm takes its mean off.
        size = max(float(np.abs(measured).max()), 1e-3)
        found[name] = float(np.abs(gradient.numpy() - measured).max()) / size
    return found


def test_the_students_gradient_is_the_derivative_of_the_loss() -> None:
    assert max(differences(detached=False).values()) < 1e-5


def test_a_variance_with_a_constant_mean_has_another_second_derivative() -> None:
    """tf.nn.moments stops the gradient at the mean inside the variance. The loss and its input gradients are the same,
    for the variance's derivative w.r.t. the mean is 0; what the weights get through the input gradients is not."""
    found = differences(detached=True)
    assert found["first.weight"] > 0.05
    assert found["head.bias"] < 0.5


def test_a_discriminator_steps_after_the_student_on_its_new_gradients(small: Small) -> None:
    """One step of either order by hand: which gradients the discriminator saw, and at which step's learning rate."""
    from transferbench.methods.igam import _discriminator_loss, _gradient

    for order in ("after", "before"):
        given = {"steps": 8, "match_share": 1.0, "input_noise": "0", "disc_layers": 2, "lr": 0.1, "momentum": 0.0}
        method: Any = methods.build("igam", {**given, "disc_order": order, "weight_decay": 0, "teacher_batch_size": 99})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = type(small.model)(10)
            student = method.student(Network(small.model, LAYERS), lambda model=model: Network(model, LAYERS), 10)
        generator = torch.Generator().manual_seed(1)
        batch = Batch(torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8), torch.arange(8), 5)
        student.model.eval()
        discriminator = method._discriminator(batch.x)
        start = {name: value.clone() for name, value in discriminator.named_parameters()}
        seen = {}
        for when in ("before", "after"):
            _, own = _gradient(student.model, batch.x, batch.y, False)
            _, teacher = _gradient(method.teacher.model, batch.x, batch.y, False)
            seen[when] = (own, teacher)
            if when == "before":
                torch.stack(list(method.loss(student, None, batch).values())).sum().backward()
                with torch.no_grad():
                    for parameter in student.model.parameters():
                        parameter.sub_(0.1 * parameter.grad)  # type: ignore[arg-type]
                method.after_step(student, batch)
        now = dict(discriminator.named_parameters())
        with torch.no_grad():
            moved = {name: (start[name] - value).clone() for name, value in now.items()}
            for name, value in now.items():
                value.copy_(start[name])
        discriminator.requires_grad_(True)
        gradients = torch.autograd.grad(_discriminator_loss(discriminator, *seen[order]), list(now.values()))
        # Step 5 of 8 has .01 by either count of the challenge's schedule (after 4, up to 6).
        for (name, _), gradient in zip(now.items(), gradients, strict=True):
            assert torch.allclose(moved[name], 0.01 * gradient, rtol=1e-3, atol=1e-6), (order, name)
