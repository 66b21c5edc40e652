"""Scores on corrupted images: RobustBench's published ones from its counts, intervals, columns, pages and exports."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from support.records import record

from transferbench.base.corruptions import SEVERITIES, benchmark
from transferbench.leaderboard import build, exports, page
from transferbench.leaderboard.corruptions import scores
from transferbench.leaderboard.statistics import wilson, wilson_of_share
from transferbench.results.records import Bits, CorruptedRecord, CorruptionRecord, Record, dump

# RobustBench's model_info/imagenet/corruptions/unaggregated_results.csv and unaggregated_results_3d.csv (March 2025),
# row Standard_R50, times 5000; the scores are those of its Standard_R50.json.
R50 = {
    "shot_noise": (2914, 2243, 1428, 513, 176),
    "motion_blur": (3180, 2671, 1877, 1079, 726),
    "snow": (2734, 1560, 1747, 1172, 825),
    "pixelate": (3190, 3217, 2299, 1465, 1044),
    "gaussian_noise": (3010, 2439, 1562, 711, 144),
    "defocus_blur": (2957, 2577, 1904, 1376, 912),
    "brightness": (3680, 3611, 3479, 3248, 2943),
    "fog": (3046, 2800, 2337, 2012, 1180),
    "zoom_blur": (2629, 2151, 1780, 1422, 1097),
    "frost": (3053, 2183, 1532, 1432, 1129),
    "glass_blur": (2681, 1987, 854, 653, 517),
    "impulse_noise": (2427, 1931, 1452, 565, 122),
    "contrast": (3214, 2912, 2330, 1049, 271),
    "jpeg_compression": (3322, 3117, 3002, 2393, 1627),
    "elastic_transform": (3342, 2257, 2728, 2061, 851),
}
R50_3D = {
    "near_focus": (3335, 3149, 2946, 2795, 2615),
    "far_focus": (3354, 3032, 2686, 2444, 2228),
    "bit_error": (3169, 2848, 2443, 2013, 1238),
    "color_quant": (3650, 3588, 3388, 2537, 927),
    "flash": (2462, 2266, 1988, 1656, 1098),
    "fog_3d": (3271, 2588, 2008, 1564, 1263),
    "h265_abr": (3532, 3482, 3232, 2570, 2608),
    "h265_crf": (3539, 3532, 3444, 3275, 3124),
    "iso_noise": (2030, 1850, 1448, 950, 402),
    "low_light": (2775, 2595, 2322, 1995, 1414),
    "xy_motion_blur": (2556, 1967, 1486, 1146, 895),
    "z_motion_blur": (2380, 1989, 1640, 1380, 1246),
}


def measured(threat: str, counts: dict[str, tuple[int, ...]], n: int) -> CorruptionRecord:
    """A benchmark with so many correct images, in every part the first ones."""
    parts = [
        CorruptedRecord(
            corruption=name,
            severity=severity,
            correct=Bits.of([place < count for place in range(n)]),
            data_fingerprint="f" * 32,
            job="0" * 32,
        )
        for name, own in counts.items()
        for severity, count in zip(SEVERITIES, own, strict=True)
    ]
    return CorruptionRecord(threat=threat, parts=parts)  # type: ignore[arg-type]


def small(victim: str = "a-s0", dataset: str = "cifar10", right: int = 10) -> Record:
    names = benchmark("corruptions", dataset.partition("[")[0]).names
    counts = dict.fromkeys(names, (right,) * 5)
    return record(victim, target_dataset=dataset, corruptions=[measured("corruptions", counts, 40)])


@pytest.fixture(scope="module")
def r50() -> Record:
    n, bits = 5000, Bits.of([place < 3836 for place in range(5000)])
    both = [measured("corruptions", R50, n), measured("corruptions_3d", R50_3D, n)]
    given = {"clean": bits, "chains": [], "crafted": [], "clean_job": "1" * 32, "clean_full": None}
    return record("r50", n=n, target_dataset="imagenet", corruptions=both, **given)


def test_mean_accuracy_and_mce_are_robustbenchs(r50: Record) -> None:
    plain, three_d = scores(r50, "corruptions"), scores(r50, "corruptions_3d")
    assert plain is not None
    assert three_d is not None
    assert plain.mce is not None
    assert three_d.mce is not None
    assert (plain.accuracy.percent, plain.mce.percent) == ("39.48", "76.38")
    assert (three_d.accuracy.percent, three_d.mce.percent) == ("47.12", "73.16")
    assert plain.counts["fog"] == list(R50["fog"])


def test_alexnet_has_an_mce_of_100() -> None:
    of = benchmark("corruptions", "imagenet")
    wrong = {name: [5000 - count for count in of.baseline[name]] for name in of.names}
    assert sum(of.weight(name) * sum(wrong[name]) for name in of.names) / 5000 == pytest.approx(1)


def test_cifar_and_subsets_have_no_mce() -> None:
    for dataset in ("cifar10", "cifar100", "imagenet[0-9]"):
        found = scores(small(dataset=dataset), "corruptions")
        assert found is not None
        assert found.mce is None
        assert found.accuracy.percent == "25.00"
    assert scores(record(), "corruptions") is None


def test_an_image_is_the_unit_of_the_intervals() -> None:
    """Where all corruptions agree on every image they say no more than one; where they are independent, all count."""
    agreeing = scores(small(), "corruptions")
    assert agreeing is not None
    # The variance over n images is by n - 1.
    assert (agreeing.accuracy.low, agreeing.accuracy.high) == pytest.approx(wilson_of_share(0.25, 40))
    assert wilson_of_share(0.25, 40) == pytest.approx(wilson(10, 40))
    rng = np.random.default_rng(0)
    names = benchmark("corruptions", "cifar10").names
    parts = measured("corruptions", dict.fromkeys(names, (0,) * 5), 40).parts
    drawn = [part.model_copy(update={"correct": Bits.of((rng.random(40) < 0.25).tolist())}) for part in parts]
    one = CorruptionRecord(threat="corruptions", parts=drawn)
    independent = scores(record(target_dataset="cifar10", corruptions=[one]), "corruptions")
    assert independent is not None
    width = independent.accuracy.high - independent.accuracy.low
    low, high = wilson(int(40 * 75 * independent.accuracy.value), 40 * 75)
    assert width == pytest.approx(high - low, rel=0.35)
    assert width < 0.3 * (agreeing.accuracy.high - agreeing.accuracy.low)


def test_columns_are_there_where_a_record_has_them() -> None:
    without = build.render([record()])
    assert "corruptions" not in "".join(without.values())
    text = build.render([record(), small("b-s0")])
    rows = {row["victim"]: row for row in csv.DictReader(io.StringIO(text["leaderboard.csv"]))}
    assert rows["b-s0"]["corruptions_acc"] == "25.00"
    assert float(rows["b-s0"]["corruptions_acc_low"]) < 25 < float(rows["b-s0"]["corruptions_acc_high"])
    assert rows["a-s0"]["corruptions_acc"] == ""
    assert "corruptions_mce" not in rows["a-s0"], "no record has one"
    low, high = rows["b-s0"]["corruptions_acc_low"], rows["b-s0"]["corruptions_acc_high"]
    assert f"25.00 [{low}, {high}]" in text["leaderboard.md"]
    assert "- `corruptions_acc`: RobustBench's score" in text["leaderboard.md"]


def test_the_page_shows_every_corruption_and_severity(r50: Record, tmp_path: Path) -> None:
    page.write(tmp_path, [r50])
    assert "39.48" in (tmp_path / "index.html").read_text()
    text = (tmp_path / "pages" / "r50.html").read_text()
    assert "Accuracy by severity: corruptions_3d" in text
    counts = f"{sum(map(sum, R50.values()))} of 375000"
    fog = '<td title="1180 of 5000, 95 % interval 22.44-24.80">23.60</td>'
    for cell in (fog, "<td>76.38</td>", counts):
        assert cell in text
    assert "What broke it" not in text


def test_robustbenchs_file_has_text_in_percent(r50: Record) -> None:
    infos = exports.model_infos([r50])
    assert list(infos) == ["model_info/imagenet/corruptions/r50.json"]
    info = json.loads(infos["model_info/imagenet/corruptions/r50.json"])
    expected = {
        "corruptions_acc": "39.48",
        "corruptions_mce": "76.38",
        "corruptions_acc_3d": "47.12",
        "corruptions_mce_3d": "73.16",
    }
    assert {name: value for name, value in info.items() if name.startswith("corruptions")} == expected
    assert (info["eps"], info["clean_acc"], info["dataset"]) == (None, "76.72", "imagenet")
    cifar = exports.model_infos([small()])
    assert "corruptions_mce" not in json.loads(cifar["model_info/cifar10/corruptions/a-s0.json"])
    assert "model_info/cifar10/Linf/a-s0.json" in cifar


def test_a_record_without_corruptions_has_no_word_of_them() -> None:
    text = dump(record())
    assert not {"corruptions", "clean_job", "unmeasured_threat"} & json.loads(text).keys()
    assert Record.model_validate_json(text) == record()
    assert Record.model_validate_json(dump(small())) == small()


def test_half_a_benchmark_is_no_benchmark() -> None:
    whole = small().corruptions[0]
    for parts in (whole.parts[:-1], [*whole.parts, whole.parts[0]], whole.parts[::-1]):
        with pytest.raises(ValidationError, match="not every corruption of cifar10"):
            record(target_dataset="cifar10", corruptions=[CorruptionRecord(threat="corruptions", parts=parts)])
    with pytest.raises(ValidationError, match="there twice"):
        record(target_dataset="cifar10", corruptions=[whole, whole])
    fewer = measured("corruptions", dict.fromkeys(whole.counts(), (1,) * 5), 8)
    with pytest.raises(ValidationError, match="other numbers of images"):
        record(target_dataset="cifar10", corruptions=[fewer])
    with pytest.raises(ValidationError, match="which clean images"):
        record(target_dataset="cifar10", corruptions=[whole], chains=[], crafted=[])
