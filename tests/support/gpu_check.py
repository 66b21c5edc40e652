"""`make gpu-check`: the tests and the figures of a GPU, in under eight minutes; writes docs/performance-gpu.md.

    python tests/support/gpu_check.py [--device cuda|cpu] [--data FOLDER [--victim FOLDER --radii LIST]]

With `--device cpu` the same code runs on a handful of images, and the page is left alone. `--data` is a folder of
classes with 32x32 images of CIFAR-10, on which searches in bf16 and fp32 are compared, on ResNet-18 and on a victim of
`train` (at `--radii`, where it should be 30 to 70 % robust); without it that part is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import transferbench  # noqa: E402
from support.photographs import crops  # noqa: E402
from transferbench import data  # noqa: E402
from transferbench.base.full_precision import full_precision  # noqa: E402
from transferbench.base.settings import EngineOptions, Precision  # noqa: E402
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel  # noqa: E402
from transferbench.engine.chain import Target, run_whole  # noqa: E402
from transferbench.engine.chain import run_chain as engine  # noqa: E402
from transferbench.engine.verdicts import ChainResult, Examples  # noqa: E402
from transferbench.models.loaders import robustbench_package  # noqa: E402
from transferbench.models.victims import load  # noqa: E402
from transferbench.scheduling.machine import cores  # noqa: E402

T = TypeVar("T")
PAGE = ROOT / "docs" / "performance-gpu.md"
TESTS = ("tests/engine", "tests/attacks", "tests/threats", "tests/data/test_decoding.py")
PROCESSES = 8
"""Processes of the tests: most of their time is Python's."""
HEADER = [
    "victim",
    "n",
    "threat",
    "reference, s",
    "its TF32 off, s",
    "ours fp32",
    "ours bf16",
    "robust: fp32, bf16, reference",
]


@dataclass(frozen=True)
class Case:
    name: str
    model: nn.Module
    examples: Examples
    threats: tuple[str, ...]


def chain(threat: str) -> Chain:
    """E-AT's protocol: APGD-CE, then APGD-T with 9 targets; in L1 after the screen."""
    norm, eps = threat.split()
    names = (("l1-screen",) if norm == "L1" else ()) + ("apgd-ce", "apgd-t")
    return Chain(norm, ThreatModel.parse(norm, eps), tuple(AttackSpec.of(name) for name in names))


def examples(model: nn.Module, n: int, device: str) -> Examples:
    """Photographs with the model's own predictions as labels."""
    x = crops()
    x = torch.cat([x, x.flip(3), x.flip(2), x.transpose(2, 3)] * 4)[:n].to(device)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(64)])
    return Examples(x, y, torch.arange(len(x), device=device))


def cases(device: str) -> list[Case]:
    few = device == "cpu"
    resnet = load("AA_ResNet18").to(device).model.eval()
    robustbench_package.model_dicts()
    from robustbench.model_zoo.architectures.wide_resnet import WideResNet

    torch.manual_seed(0)
    wide = WideResNet(16 if few else 28, 10, 2 if few else 10).to(device).eval().requires_grad_(False)
    norms = ("Linf 8/255", "L2 0.5", "L1 12")
    return [
        Case("ResNet-18, not robust", resnet, examples(resnet, 2 if few else 512, device), norms),
        Case("ResNet-18, robust", resnet, examples(resnet, 2 if few else 128, device), ("Linf 1/10200",)),
        Case("WideResNet-28-10, untrained", wide, examples(wide, 2 if few else 32, device), ("Linf 1e-5",)),
    ]


def timed(call: Callable[[], T], device: str) -> tuple[float, T]:
    """(wall clock seconds, what the call returns)."""
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def ours(case: Case, threat: str, precision: Precision) -> ChainResult:
    """A whole evaluation, the preparation of the network included."""
    with full_precision():
        x, y, _ = case.examples
        target = Target.prepare(case.model, x, y, None, EngineOptions(precision=precision))
        return run_whole(engine, target, chain(threat), case.examples, 0)


def reference(case: Case, threat: str, tf32: bool) -> Tensor:
    """pyautoattack as people call it, 256 images at once; bool [n]: robust."""
    from pyautoattack import AutoAttack

    norm, eps = threat.split()
    radius = float(ThreatModel.parse(norm, eps).eps.value)
    x, y, _ = case.examples

    def run() -> Tensor:
        torch.manual_seed(0)
        attack = AutoAttack(
            case.model, attacks=["apgd-ce", "apgd-t"], norm=norm, eps=radius, version="custom", device=x.device
        )
        attack.apgd.n_restarts, attack.apgd_targeted.n_restarts = 1, 1
        attack.apgd_targeted.n_target_classes = 9
        attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = norm == "L1"
        points = attack.run_standard_evaluation(x, y, batch_size=256)
        points = points[0] if isinstance(points, tuple) else points
        with torch.no_grad():
            return torch.cat([case.model(part).argmax(1) for part in points.split(256)]) == y

    if tf32:
        return run()
    with full_precision():
        torch.backends.cudnn.deterministic = False
        return run()


def standing(result: ChainResult) -> list[bool]:
    return [not verdict.fooled for verdict in result.verdicts]


def compare(device: str) -> list[list[str]]:
    """A row for each case and threat."""
    rows = []
    for case in cases(device):
        ours(Case("", case.model, case.examples.at(torch.arange(2)), ()), case.threats[0], "fp32")
        for threat in case.threats:
            tf32, left = timed(partial(reference, case, threat, True), device)
            plain, _ = timed(partial(reference, case, threat, False), device)
            fp32, exact = timed(partial(ours, case, threat, "fp32"), device)
            bf16, low = timed(partial(ours, case, threat, "bf16"), device)
            robust = sum(standing(exact)), sum(standing(low)), int(left.sum())
            row = [
                *(case.name, str(len(case.examples.x)), threat, f"{tf32:.1f}", f"{plain:.1f}"),
                *(f"{one:.1f} ({tf32 / one:.2f}x)" for one in (fp32, bf16)),
                ", ".join(map(str, robust)),
            ]
            print(" | ".join(row), flush=True)
            rows.append(row)
    return rows


def all_gpus() -> list[list[str]]:
    """One GPU against all, on examples that most survive; nothing where there is one."""
    count = torch.cuda.device_count()
    if count < 2:
        return []
    case = cases("cuda")[1]
    x, y, _ = case.examples
    given = {"threats": {"Linf": "1/10200"}, "device": "cuda", "progress": False}
    call = partial(transferbench.evaluate, case.model, x.repeat(count, 1, 1, 1), y.repeat(count), **given)
    one, _ = timed(partial(call, workers=1), "cuda")
    every, _ = timed(partial(call, workers=count), "cuda")
    return [[str(count), f"{one:.1f}", f"{every:.1f}", f"{one / every:.2f}"]]


def run_tests(device: str) -> tuple[str, bool]:
    """The engine's tests on the device: their last line, and whether all passed."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
    ]
    words += ["-m", "not slow and not cpu_only", "--device", device, "--tb=short", *TESTS]
    processes = min(PROCESSES, cores())
    words += ["-n", str(processes), "--dist", "worksteal"] if processes > 1 else []
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        print(f"tests on {device} failed:\n{done.stdout[-8000:]}\n{done.stderr[-1000:]}", flush=True)
    return done.stdout.strip().splitlines()[-1].strip("= "), done.returncode == 0


def verdicts(case: Case, device: str) -> list[list[str]]:
    """Searches in bf16 and fp32 on real images, at radii at which the network is 30 to 70 % robust."""
    rows, n = [], len(case.examples.x)
    for threat in case.threats:
        fp32, first = timed(partial(ours, case, threat, "fp32"), device)
        bf16, second = timed(partial(ours, case, threat, "bf16"), device)
        exact, low = standing(first), standing(second)
        missed = [str(first.verdicts[at].example) for at in range(n) if low[at] and not exact[at]]
        only = sum(exact[at] and not low[at] for at in range(n))
        row = [
            *(case.name, threat, str(n), str(sum(exact)), str(sum(low)), ", ".join(missed) or "none", str(only)),
            *(str(second.searched_again), f"{fp32:.1f}", f"{bf16:.1f}"),
        ]
        print(" | ".join(row), flush=True)
        rows.append(row)
    return rows


def real_cases(folder: Path, victim: Path | None, radii: str, device: str) -> list[Case]:
    """The networks whose verdicts are compared, on CIFAR-10 images of the folder."""
    test = data.load(f"folder:{folder}", "test").first(2 if device == "cpu" else 340).on(device)
    given = Examples(test.pixels, test.labels, test.ids)
    resnet = load("AA_ResNet18").to(device).model.eval()
    found = [Case("ResNet-18, not robust", resnet, given, ("Linf 0.4/255", "L2 0.06", "L1 1.2"))]
    if victim is not None:
        trained = load(str(victim)).to(device)
        found.append(Case(trained.id, trained.model.eval(), given, tuple(radii.split(","))))
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--victim", type=Path)
    parser.add_argument("--radii", default="Linf 4/255,L2 0.5,L1 8")
    parser.add_argument("--without-tests", action="store_true")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible: make gpu-check DEVICE=cpu runs the same on a handful of images")
    if given.device == "cpu":
        torch.set_num_threads(1)
    began = time.perf_counter()
    on_card = given.device != "cpu"
    tested, passed = ("", True) if given.without_tests else run_tests(given.device)
    rows, real = compare(given.device), []
    # Written as soon as there is something: a slow card may be taken away before the end.
    several = all_gpus() if on_card else []
    if on_card:
        write_page(rows, real, several, tested)
    for case in real_cases(given.data, given.victim, given.radii, given.device) if given.data else ():
        real += verdicts(case, given.device)
        if on_card:
            write_page(rows, real, several, tested)
    print(f"{time.perf_counter() - began:.0f} s in all; {tested}")
    if not on_card:
        print(f"no GPU figure was made: {PAGE.relative_to(ROOT)} is as it was")
    raise SystemExit(not passed)


def write_page(rows: list[list[str]], real: list[list[str]], several: list[list[str]], tested: str) -> None:
    card = torch.cuda.get_device_name()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyautoattack"))
    parts = [
        "# Performance on a GPU",
        f"Written by `make gpu-check` on one {card} ({torch.cuda.device_count()} visible), {packages}. Wall clock in "
        "seconds, with the preparation of the network. The reference runs as it is called, with the TF32 convolutions "
        "that torch has by default, and with TF32 off; ours searches in fp32 with TF32 off or in bf16, and judges in "
        "fp32 (times of the reference in brackets). Labels are the models' own predictions on photograph crops.",
        table(HEADER, rows),
        "Aimed at for WideResNet-28-10 in bf16: 3x.",
    ]
    if real:
        header = ["network", "threat", "n", "robust fp32", "robust bf16", "fp32 broke, bf16 did not", "the other way"]
        parts += ["## Verdicts in bf16", table([*header, "searched again", "fp32, s", "bf16, s"], real)]
    parts.append("## Several GPUs")
    parts.append(table(["GPUs", "one, s", "all, s", "ratio"], several) if several else "One GPU was visible.")
    if tested:
        parts.append(f"Tests of the engine, the attacks and the threats on the card: {tested}.")
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
