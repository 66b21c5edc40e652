"""TensorFlow checkpoints: read value by value, damaged ones refused, and compared with TensorFlow itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tensor_bundle

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.models import networks, victims
from transferbench.models.weights.tf1 import madry_variables, tensorflow_logits
from transferbench.models.weights.tf1.checkpoint import TensorFlowCheckpoint
from transferbench.models.weights.tf1.records import DamagedError, checksum, table

RANDOM = np.random.default_rng(0)


def variables() -> dict[str, Any]:
    """The names of Madry's network, with small shapes; its optimiser's variables and counter beside them."""
    found: dict[str, Any] = {"global_step": np.int64(70000) * np.ones((), np.int64)}
    for here, there in madry_variables.names("logit"):
        shape = (
            (3, 3, 2, 4) if "conv" in here else (4, 5) if here == "head.weight" else (5,) if "head" in here else (4,)
        )
        found[there] = RANDOM.normal(size=shape).astype(np.float32)
        found[f"{there}/Momentum"] = np.zeros(shape, np.float32)
    return found


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    values = variables()
    tensor_bundle.write(tmp_path / "checkpoint-70000", values)
    return tmp_path / "checkpoint-70000", values


def test_the_checksum_is_tensorflows() -> None:
    # The value of TensorFlow's own test of masked CRC-32C (32 zero bytes have CRC-32C 0x8a9136aa, RFC 3720).
    assert checksum(bytes(32)) == ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_every_variable_is_read(written: tuple[Path, dict[str, Any]]) -> None:
    prefix, values = written
    for path in (prefix, prefix.with_name("checkpoint-70000.index"), prefix.parent):
        checkpoint = TensorFlowCheckpoint(path)
        assert sorted(checkpoint.variables) == sorted(values)
        for name, value in values.items():
            assert np.array_equal(checkpoint.read(name), value)
    state = madry_variables.state_dict(checkpoint, "logit")
    assert torch.equal(
        state["stage2.3.conv2.weight"], torch.from_numpy(values["unit_2_3/sub2/conv2/DW"].transpose(3, 2, 0, 1).copy())
    )
    assert torch.equal(state["head.weight"], torch.from_numpy(values["logit/DW"].T.copy()))
    names = {name for name in networks.build("madry-wrn-32-10", 10).model.state_dict() if "num_batches" not in name}
    assert set(state) == names


def test_a_folder_names_its_latest(tmp_path: Path) -> None:
    for step in (100, 200):
        tensor_bundle.write(tmp_path / f"checkpoint-{step}", {"x": np.full(3, step, np.float32)})
    with pytest.raises(InputError, match="checkpoint-100, checkpoint-200"):
        TensorFlowCheckpoint(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/somebody/models/checkpoint-100"\n')
    assert TensorFlowCheckpoint(tmp_path).read("x")[0] == 100


def problem(prefix: Path, values: dict[str, Any]) -> list[str]:
    """Why a checkpoint is refused, if it is."""
    try:
        checkpoint = TensorFlowCheckpoint(prefix)
        for name in values:
            checkpoint.read(name)
    except InputError as error:
        return [str(error)]
    return []


def test_damaged_files_are_refused(written: tuple[Path, dict[str, Any]]) -> None:
    prefix, values = written
    index = prefix.with_name("checkpoint-70000.index")
    whole = index.read_bytes()
    problems = []
    for trial in range(300):
        damaged = bytearray(whole)
        for at in RANDOM.integers(len(whole), size=1 + trial % 3):
            damaged[at] = RANDOM.integers(256)
        index.write_bytes(damaged[: RANDOM.integers(len(whole))] if trial % 4 == 0 else damaged)
        problems += problem(prefix, values)
    # A changed byte may be the one that was there, or lie in the padding of the footer.
    assert len(problems) > 270
    assert not any("\n" in text for text in problems)
    index.write_bytes(whole)
    data = prefix.with_name("checkpoint-70000.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[40] ^= 1
    data.write_bytes(content)
    (text,) = problem(prefix, values)
    assert "checksum is wrong" in text


def test_an_index_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    # Every key repeats the one before and adds a byte.
    entries = {b"a" * length: b"" for length in range(1, 6000)}
    with pytest.raises(DamagedError, match="longer than"):
        list(table(tensor_bundle.table(entries)))
    with pytest.raises(DamagedError, match="not in order"):
        list(table(tensor_bundle.table({b"b": b"", b"a": b""})))


@pytest.mark.parametrize("shape", [(2**61,), (2**33, 2**33), (0, 2**62), (1,) * 100])
def test_a_shape_of_no_variable_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor_bundle.write(tmp_path / "net", {"x": np.zeros(3, np.float32)}, shape=shape)
    with pytest.raises(InputError, match=r"shape|too short"):
        TensorFlowCheckpoint(tmp_path / "net").read("x")


def test_what_is_no_checkpoint_is_one_line(
    tmp_path: Path, written: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, _ = written
    (tmp_path / "old").write_bytes(b"TensorFlow 0.12")
    other = tmp_path / "other"
    other.mkdir()
    tensor_bundle.write(other / "net", {"dense/kernel": np.zeros((2, 2), np.float32)})
    out = ["--out", str(tmp_path / "out"), "--dataset", "cifar10"]
    for words, complaint in (
        ([str(tmp_path / "gone"), "--network", "madry-wrn-32-10"], "there is no gone.index"),
        ([str(tmp_path / "old"), "--network", "madry-wrn-32-10"], "before TensorFlow 1.0"),
        ([str(other), "--network", "madry-wrn-32-10"], "another network"),
        ([str(prefix), "--network", "aa-resnet18"], "madry-wrn-32-10 and igam-wrn-32-10"),
        ([str(prefix), "--network", "madry-wrn-32-10", "--head", "target_task_logit"], "the checkpoint has logit"),
        ([str(prefix), "--network", "madry-wrn-32-10"], "conv1.weight"),
    ):
        assert main(["import-tf1", *words, *out]) == 2, words
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_statistics_says_what_it_can_be() -> None:
    class Teacher:
        prefix = "teacher"
        variables = {  # noqa: RUF012
            there: type("V", (), {"shape": (4,)})
            for _, there in madry_variables.names("target_task_logit")
            if "moving" not in there
        }

        def read(self, name: str) -> Any:
            shape = (3, 3, 2, 4) if "conv" in name else (4, 5) if name.endswith("DW") else (4,)
            return np.zeros(shape, np.float32)

    teacher: Any = Teacher()
    with pytest.raises(InputError, match="batch-statistics:madry-wrn-32-10"):
        madry_variables.state_dict(teacher, "target_task_logit")
    state = madry_variables.state_dict(teacher, "target_task_logit", has_statistics=False)
    assert float(state["bn.running_var"].sum()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("network", ["madry-wrn-32-10", "igam-wrn-32-10", "batch-statistics:madry-wrn-32-10"])
def test_a_checkpoint_that_tensorflow_wrote(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole network, saved by tf.compat.v1.train.Saver; its logits by TensorFlow and by the imported model."""
    tf = pytest.importorskip("tensorflow", reason="the extra tf")
    before = "classifier/" if network == "igam-wrn-32-10" else ""
    state = networks.build("madry-wrn-32-10", 10).model.state_dict()
    saved: dict[str, Any] = {}
    with tf.Graph().as_default():
        for here, there in madry_variables.names("logit"):
            if network.startswith("batch-statistics") and "moving" in there:
                continue
            value = state[here]
            if here.endswith(("running_var", "bn.weight", "bn1.weight", "bn2.weight")):
                value = torch.rand(value.shape) + 0.5
            elif value.dim() == 1:
                value = 0.1 * torch.randn(value.shape)
            order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.dim()]
            saved[there] = tf.compat.v1.get_variable(
                f"{before}{there}", initializer=np.ascontiguousarray(value.numpy().transpose(order))
            )
        tf.compat.v1.get_variable("global_step", initializer=np.int64(7))
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver().save(session, str(tmp_path / "model" / "checkpoint"), global_step=70000)
    out = tmp_path / "imported"
    words = ["import-tf1", str(tmp_path / "model"), "--network", network, "--dataset", "cifar10", "--out", str(out)]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "logits differ from TensorFlow's by" in printed
    victim = victims.load(str(out))
    x = torch.rand(3, 3, 32, 32)
    pixels = (255 * x).permute(0, 2, 3, 1).contiguous().numpy()
    kind = tensorflow_logits.Kind(network == "igam-wrn-32-10", network.startswith("batch"))
    expected = tensorflow_logits.logits(TensorFlowCheckpoint(tmp_path / "model"), f"{before}logit", pixels, kind)
    with torch.no_grad():
        assert np.allclose(victim.model(x).numpy(), expected, atol=1e-3 * np.ptp(expected))
