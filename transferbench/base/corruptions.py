"""Common corruptions, RobustBench's third threat: which ones make a benchmark, and the baseline of its mCE.

Hendrycks & Dietterich 2019 (arXiv:1903.12261) corrupt test images in 15 ways at 5 severities: CIFAR-10-C, CIFAR-100-C,
ImageNet-C. Kar et al. 2022 (arXiv:2203.01441) use the scene's geometry, in 12 ways: ImageNet-3DCC. RobustBench scores a
model by its mean accuracy over all corruptions and severities, on ImageNet also by the mean corruption error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from transferbench.base.errors import InputError
from transferbench.base.registry import unknown

CorruptionThreat = Literal["corruptions", "corruptions_3d"]
CORRUPTION_THREATS: tuple[CorruptionThreat, ...] = get_args(CorruptionThreat)
SEVERITIES = (1, 2, 3, 4, 5)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Corruptions that the data sets hold for validation; they are no part of a benchmark."""

_ALEXNET: dict[str, tuple[int, ...]] = {
    "shot_noise": (1472, 799, 363, 98, 60),
    "motion_blur": (2087, 1475, 897, 511, 349),
    "snow": (1394, 570, 660, 425, 251),
    "pixelate": (2377, 2251, 1335, 644, 429),
    "gaussian_noise": (1555, 907, 362, 107, 29),
    "defocus_blur": (1702, 1310, 751, 425, 261),
    "brightness": (2752, 2570, 2320, 1943, 1453),
    "fog": (1577, 1162, 785, 607, 278),
    "zoom_blur": (1514, 1154, 968, 815, 656),
    "frost": (1894, 988, 526, 497, 308),
    "glass_blur": (1743, 1206, 563, 400, 318),
    "impulse_noise": (1117, 577, 278, 70, 27),
    "contrast": (1748, 1167, 547, 133, 47),
    "jpeg_compression": (2429, 2261, 2114, 1744, 1282),
    "elastic_transform": (2355, 1511, 2200, 1784, 949),
}
"""Per severity, the images of RobustBench's 5000 that AlexNet classifies correctly: its unaggregated_results.csv."""

_ALEXNET_3D: dict[str, tuple[int, ...]] = {
    "near_focus": (2308, 2096, 1911, 1777, 1641),
    "far_focus": (2361, 1951, 1657, 1450, 1293),
    "bit_error": (2216, 2000, 1636, 1315, 749),
    "color_quant": (2755, 2694, 2509, 1653, 484),
    "flash": (1429, 1240, 1041, 780, 479),
    "fog_3d": (2187, 1404, 926, 664, 480),
    "h265_abr": (2490, 2418, 2247, 1813, 1847),
    "h265_crf": (2514, 2506, 2443, 2248, 2159),
    "iso_noise": (654, 526, 329, 143, 60),
    "low_light": (1416, 1182, 937, 623, 280),
    "xy_motion_blur": (1514, 1045, 765, 578, 477),
    "z_motion_blur": (1396, 1154, 965, 830, 758),
}
"""Likewise on ImageNet-3DCC: unaggregated_results_3d.csv."""

_BASELINE_N = 5000


class Corrupted(NamedTuple):
    """One corruption at one severity, with the id of its data set."""

    corruption: str
    severity: int
    dataset: str


@dataclass(frozen=True)
class CorruptionBenchmark:
    """A threat on a data set: `family` is the word before the colon of the corrupted data sets' ids, `names` the
    corruptions in RobustBench's order, `baseline` AlexNet's counts, empty where RobustBench has no mCE (CIFAR)."""

    threat: CorruptionThreat
    dataset: str
    family: str
    names: tuple[str, ...]
    baseline: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def parts(self) -> Iterator[Corrupted]:
        """Every corruption at every severity, in order."""
        for name in self.names:
            for severity in SEVERITIES:
                yield Corrupted(name, severity, f"{self.family}:{name}:{severity}")

    def weight(self, corruption: str) -> float:
        """What one image that is wrong at one severity of the corruption adds to n times the mCE.

        mCE = mean over corruptions of (the model's mean error over severities / AlexNet's). KeyError without a
        baseline.
        """
        errors = sum(1 - correct / _BASELINE_N for correct in self.baseline[corruption])
        return 1 / (len(self.names) * errors)


BENCHMARKS: tuple[CorruptionBenchmark, ...] = (
    CorruptionBenchmark("corruptions", "cifar10", "cifar10-c", tuple(_ALEXNET)),
    CorruptionBenchmark("corruptions", "cifar100", "cifar100-c", tuple(_ALEXNET)),
    CorruptionBenchmark("corruptions", "imagenet", "imagenet-c", tuple(_ALEXNET), _ALEXNET),
    CorruptionBenchmark("corruptions_3d", "imagenet", "imagenet-3dcc", tuple(_ALEXNET_3D), _ALEXNET_3D),
)


def benchmark(threat: str, dataset: str) -> CorruptionBenchmark:
    """The benchmark of a threat on a data set of clean images. InputError where there is none."""
    found = next((one for one in BENCHMARKS if (one.threat, one.dataset) == (threat, dataset)), None)
    if found is None:
        known = ", ".join(one.dataset for one in BENCHMARKS if one.threat == threat)
        raise InputError(f"{threat}: there are no corrupted images of {dataset}, only of {known}")
    return found


def of_family(family: str) -> CorruptionBenchmark:
    """The benchmark whose data sets have this word before the colon. StopIteration for another word."""
    return next(one for one in BENCHMARKS if one.family == family)


def parse(id: str) -> Corrupted:
    """Read `cifar10-c:fog:3`. InputError for an unknown corruption, or a severity that is not 1 to 5."""
    family, *parts = id.split(":")
    one = of_family(family)
    names = (*one.names, *(EXTRA if one.threat == "corruptions" else ()))
    if len(parts) != 2:
        raise InputError(f"data set {id}: write it as {family}:<corruption>:<severity>, {family}:{names[0]}:3")
    name, severity = parts
    if name not in names:
        raise InputError(f"data set {id}: {unknown('corruption', name, names)}")
    if severity not in map(str, SEVERITIES):
        raise InputError(f"data set {id}: severity {severity!r} is none of 1, 2, 3, 4, 5")
    return Corrupted(name, int(severity), id)
