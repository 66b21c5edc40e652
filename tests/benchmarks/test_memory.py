"""Peak host memory beside the reference's on the same batch, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TITLE = "Memory"
WHAT = (
    "Peak resident memory of a process that attacks 48 photograph crops with the ResNet-18 that pyautoattack ships, "
    "APGD-CE with 10 iterations, 48 rows in flight, at a radius at which the crops stay robust."
)
THREATS = {"Linf": "1e-5", "L2": "1e-4", "L1": "1e-3"}

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import transferbench
from support.photographs import crops
from transferbench.models.victims import load
model, x = load("AA_ResNet18").model, crops()
with torch.no_grad():
    y = model(x).argmax(1)
backend, norm, eps = sys.argv[2:]
if backend == "transferbench":
    transferbench.evaluate(model, x, y, {norm: eps}, ("apgd-ce",), n_iter=10, screen=False, batch_size=48)
else:
    from pyautoattack.autopgd_base import APGDAttack
    attack = APGDAttack(model, n_iter=10, n_restarts=5, norm=norm, eps=float(eps), device="cpu")
    attack.use_largereps = norm == "L1"
    attack.perturb(x, y)
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


def peak(backend: str, norm: str, eps: str) -> int:
    """MiB. Not ru_maxrss: a child begins with its parent's."""
    here = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, backend, norm, eps], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory(benchmark: Any, note: Callable[..., None]) -> None:
    cells: dict[str, tuple[int, int]] = {}

    def measure() -> None:
        for norm, eps in THREATS.items():
            cells[norm] = peak("transferbench", norm, eps), peak("reference", norm, eps)

    benchmark.pedantic(measure, rounds=1)
    for norm, (ours, reference) in cells.items():
        note(
            TITLE,
            WHAT,
            ["norm", "ours, MiB", "reference, MiB", "ratio"],
            [norm, str(ours), str(reference), f"{ours / reference:.2f}"],
        )


STREAMING = "Memory over large images"
STREAMED = (
    "Peak resident memory of a process that evaluates n synthetic photographs of 256x256 (small network, FGSM), and of "
    "one that only imports what is needed: images are decoded shard by shard."
)
FOLDER_SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.jobs.networks import PublicNetwork
from transferbench.models.cards import ModelCard
from transferbench.models.features import Layers
from transferbench.models.victim import Victim
from transferbench.scheduling.plan import Images, attack_jobs
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store
n, folder, root = int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
class Recorder:
    def plan(self, *_): ...
    def begin(self, *_): ...
    def start(self, *_): ...
    def update(self, *_): ...
    def end(self, *_, **__): ...
    def failed(self, *_): ...
    def note(self, *_): ...
if n:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    card = ModelCard(id="net", network="x", dataset="x", classes=("a", "b"), input_shape=(3, 224, 224), method="x",
                     preprocessing="Res256Crop224")
    chain = Chain("Linf", ThreatModel.parse("Linf", "4/255"), (AttackSpec.of("fgsm"),))
    jobs = attack_jobs(PublicNetwork("net"), chain, Images(f"folder:{folder}", "Res256Crop224", n), 0)
    with Store(root) as store:
        scheduler = Scheduler(store, RunSettings())
        scheduler.resources.provide_network("net", Victim(card, net, Layers((), ""), "0" * 64))
        scheduler.run(jobs, Recorder())
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_large_images_stream(benchmark: Any, note: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2048):
        place = tmp_path / "images" / "test" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((256, 256)).save(place / f"{number}.jpg")
    found: dict[int, int] = {}

    def measure() -> None:
        for n in (0, 256, 1024, 2048):
            words = [sys.executable, "-c", FOLDER_SCRIPT, "", str(n), str(tmp_path / "images"), str(tmp_path / f"s{n}")]
            found[n] = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    benchmark.pedantic(measure, rounds=1)
    for n, size in found.items():
        note(STREAMING, STREAMED, ["n", "peak, MiB"], [str(n) if n else "imports alone", str(size)])
    assert found[2048] < found[256] * 1.15, "host memory stays flat"
