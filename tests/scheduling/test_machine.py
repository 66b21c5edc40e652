"""Which cores and GPUs are used, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.scheduling.machine import Gpu, choose, cores
from transferbench.workflows import settings

GB = 2**30


def gpus(*free: int) -> list[Gpu]:
    return [Gpu(number, f"id{number}", "card", part * GB, 80 * GB) for number, part in enumerate(free)]


def test_auto_takes_the_gpus_that_nobody_uses_else_all_cores() -> None:
    four = choose("auto", None, gpus(80, 79, 30, 72))
    assert (four.device, four.workers, four.gpus) == ("cuda", 3, ("id0", "id1", "id3"))
    assert four.text == (
        "using 3 GPUs (cuda:0 card, cuda:1 card, cuda:3 card); 1 of 4 GPUs are in use by others; CUDA_VISIBLE_DEVICES "
        "or --workers N takes fewer, --device cpu none"
    )
    one = choose("auto", None, gpus(10, 80))
    assert (one.device, one.workers, one.gpus) == ("cuda:1", 1, ())
    none = choose("auto", None, gpus(10, 20), available=6)
    assert (none.device, none.workers) == ("cpu", 6)
    assert "2 of 2 GPUs are in use by others" in none.text
    assert (
        choose("auto", 3, [], available=6).text
        == "using the CPU: 3 processes of one core each on 6 cores; --workers N limits"
    )
    assert choose("cpu", 1, available=6).workers == 1


def test_more_workers_than_gpus_share_them() -> None:
    two = choose("cuda", 5, gpus(80, 10, 80))
    assert (two.device, two.workers, two.gpus) == ("cuda", 5, ("id0", "id2", "id0", "id2", "id0"))
    assert two.text.startswith("using 2 GPUs (cuda:0 card, cuda:2 card), shared by 5 processes; 1 of 3 GPUs are in use")
    one = choose("auto", 2, gpus(80))
    assert (one.device, one.workers, one.gpus) == ("cuda", 2, ("id0", "id0"))


def test_what_is_asked_for_and_not_there() -> None:
    with pytest.raises(InputError, match="none of 1 GPUs has 90% of its memory free; --device cuda:0"):
        choose("cuda", None, gpus(10))
    with pytest.raises(InputError, match="--device cuda:0 stays in this process"):
        choose("cuda:0", 2, gpus(80, 80))
    with pytest.raises(InputError, match="at least 1"):
        choose("cpu", 0)
    assert choose("cuda:0", None, gpus(10)).device == "cuda:0", "one by its number, whatever its memory"


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("4:cpu,x:/j\n", {"cpu,x/j/cpu.cfs_quota_us": "100000", "cpu,x/j/cpu.cfs_period_us": "50000"}, 2),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/\n0::/x", {"x/cpu.max": "50000 100000"}, 1),
        ("", {}, None),
    ],
)  # fmt: skip
def test_a_quota_counts(
    group: str, files: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text(group)
    assert cores(tmp_path / "cgroup", tmp_path) == (expected or 8)


@pytest.mark.parametrize(
    ("device", "cluster", "reason"),
    [("cpu:1", None, "a CPU has no number"), ("auto", "local:2", "--device auto: not with --cluster")],
)
def test_a_device_that_makes_no_sense(device: str, cluster: str | None, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        settings.placed(RunSettings(cluster=cluster), device)
