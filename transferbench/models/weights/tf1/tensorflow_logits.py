"""The logits of Madry's WRN-32-10 by TensorFlow itself, from a checkpoint's variables: what the import is compared
with.

TensorFlow is the optional extra `tf`.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transferbench.models.weights.tf1.checkpoint import TensorFlowCheckpoint
from transferbench.models.weights.tf1.madry_variables import STAGES, UNITS

_EPSILON, _SLOPE = 1e-3, 0.1
"""The defaults of tf.contrib.layers.batch_norm, and the leaky ReLU of the networks."""


def is_available() -> bool:
    """Whether TensorFlow is installed."""
    return find_spec("tensorflow") is not None


class Kind(NamedTuple):
    """`unit_input`: images are scaled to zero mean and unit L2 norm (IGAM's students) instead of being standardised;
    `batch_statistics`: batch norm uses those of the batch instead of the running ones."""

    unit_input: bool
    batch_statistics: bool


def logits(checkpoint: TensorFlowCheckpoint, head: str, images: NDArray[np.float32], kind: Kind) -> NDArray[np.float32]:
    """[n, classes] of images [n, 32, 32, 3] on the 0..255 scale."""
    tf: Any = importlib.import_module("tensorflow")
    scope = head.rpartition("/")[0]
    before = f"{scope}/" if scope else ""

    def value(name: str) -> Any:
        return tf.constant(checkpoint.read(f"{before}{name}"))

    def norm(x: Any, name: str) -> Any:
        beta, gamma = (value(f"{name}/BatchNorm/{part}") for part in ("beta", "gamma"))
        if kind.batch_statistics:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
        else:
            mean, variance = (value(f"{name}/BatchNorm/{part}") for part in ("moving_mean", "moving_variance"))
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, _EPSILON)

    def conv(x: Any, name: str, stride: int) -> Any:
        return tf.nn.conv2d(x, value(f"{name}/DW"), [1, stride, stride, 1], "SAME")

    def active(x: Any) -> Any:
        return tf.where(x < 0, _SLOPE * x, x)

    x = tf.constant(images)
    if kind.unit_input:
        x = x - tf.reduce_mean(x, [1, 2, 3], keepdims=True)
        x = x / tf.norm(tf.reshape(x, [len(images), -1]), axis=1)[:, None, None, None]
    else:
        x = tf.image.per_image_standardization(x)
    x = conv(x, "input/init_conv", 1)
    for stage in range(1, STAGES + 1):
        for unit in range(UNITS):
            name, stride = f"unit_{stage}_{unit}", 2 if stage > 1 and unit == 0 else 1
            first = (stage, unit) == (1, 0)
            inner = active(norm(x, f"{name}/{'shared' if first else 'residual_only'}_activation"))
            shortcut = inner if first else x
            inner = conv(inner, f"{name}/sub1/conv1", stride)
            inner = conv(active(norm(inner, f"{name}/sub2")), f"{name}/sub2/conv2", 1)
            more = int(inner.shape[-1]) - int(shortcut.shape[-1])
            if more:
                shortcut = tf.nn.avg_pool2d(shortcut, stride, stride, "VALID")
                shortcut = tf.pad(shortcut, [[0, 0], [0, 0], [0, 0], [more // 2, more // 2]])
            x = inner + shortcut
    x = tf.reduce_mean(active(norm(x, "unit_last")), [1, 2])
    last = head.rpartition("/")[2]
    result: NDArray[np.float32] = (x @ value(f"{last}/DW") + value(f"{last}/biases")).numpy()
    return result
