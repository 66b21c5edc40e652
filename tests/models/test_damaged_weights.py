"""Damaged and unusual files of weights: only an InputError of one plain line, or tensors, may come out."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models import weights

DAMAGED = 400
"""Damaged files of each of the five forms."""


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def torch_bytes(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def rich() -> dict[str, Any]:
    """What training scripts save: several state dicts, an optimiser, numbers, arguments."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    return {
        "state_dict": model.state_dict(),
        "state_dict_ema": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")),
    }


FORMS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: torch_bytes(net().state_dict()),
    "rich-zip": lambda: torch_bytes(rich()),
    "legacy": lambda: torch_bytes(net().state_dict(), zipped=False),
    "rich-legacy": lambda: torch_bytes(rich(), zipped=False),
    "safetensors": lambda: save(net().state_dict()),
}


def behind(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def robustness() -> dict[str, Any]:
    constants = {"new_mean": torch.tensor([0.5]), "new_std": torch.tensor([0.5])}
    parts = {**behind("module.normalizer.", constants), **behind("module.model.", net().state_dict()),
             **behind("module.attacker.model.", net().state_dict())}  # fmt: skip
    return {"model": parts, "epoch": 3}


SCRIPTS: dict[str, Callable[[], Any]] = {
    "lightning": lambda: {"state_dict": behind("net.", net().state_dict()), "pytorch-lightning_version": "2.5.0"},
    "robustness": robustness,
    "sequential": lambda: {"0.mean": torch.tensor([0.5]), "0.std": torch.tensor([0.5]),
                           **behind("1.", net().state_dict())},
    "averaged": lambda: {**behind("module.", net().state_dict()), "n_averaged": torch.tensor(2)},
    "compiled": lambda: {"net": behind("_orig_mod.module.", net().state_dict()), "acc": 9.5},
    "half": lambda: {name: tensor.half() if tensor.is_floating_point() else tensor
                     for name, tensor in net().state_dict().items()},
}  # fmt: skip
"""Forms of other libraries, which are read through what is above and so are damaged less often."""


def damaged(whole: bytes, seed: str) -> Iterator[bytes]:
    """Truncations, changed, inserted, removed and repeated bytes, alone and together."""
    draw = random.Random(seed)
    while True:
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 1, 2, 8, 64))):
            # Half of all damage at the beginning or the end, where containers have their tables.
            edge = draw.choice((0, max(len(content) - 400, 0)))
            place = draw.choice((draw.randrange(len(content) + 1), min(edge + draw.randrange(400), len(content))))
            kind = draw.choice(("flip", "flip", "set", "cut", "insert", "remove", "repeat", "huge"))
            part = slice(place, place + draw.randrange(1, 16))
            if kind == "cut":
                del content[max(place, 1) :]
            elif kind == "insert":
                content[place:place] = draw.randbytes(draw.randrange(1, 16))
            elif kind == "remove":
                del content[part]
            elif kind == "repeat":
                content[place:place] = content[part]
            elif kind == "huge":
                content[place : place + 8] = draw.choice((b"\xff" * 4, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0"))
            elif place < len(content):
                content[place] = draw.randrange(256) if kind == "set" else content[place] ^ 1 << draw.randrange(8)
        yield bytes(content) or b"\0"


def one_plain_line(error: InputError, path: Path) -> None:
    text = str(error)
    assert text.startswith(f"weights {path}: "), text
    assert text.isprintable(), text
    assert text.count("weights /") == 1, "the file is named once"
    for word in ("weights_only", "torch.load", "Traceback", "github.com/pytorch"):
        assert word not in text


def read_and_load(path: Path) -> bool:
    """Whether the file gave a state dict; an InputError is checked for its form."""
    try:
        file = weights.open_file(path)
        for entry in file.entries:
            file.state(entry)
        model = net()
        weights.load_strictly(model, weights.select(file, model).state, path)
    except InputError as error:
        one_plain_line(error, path)
        return False
    return True


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_give_tensors_or_one_line(form: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    whole = FORMS[form]()
    path.write_bytes(whole)
    assert read_and_load(path)
    results = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in itertools.islice(damaged(whole, form), DAMAGED):
        path.write_bytes(content)
        results.append(read_and_load(path))
    assert not all(results)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "KiB: no damage makes a small file take much memory"
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("form", SCRIPTS)
def test_damaged_files_of_every_library_give_tensors_or_one_line(form: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "w.pt", torch_bytes(SCRIPTS[form]())
    path.write_bytes(whole)
    assert read_and_load(path)
    results = []
    for content in itertools.islice(damaged(whole, form), DAMAGED // 10):
        path.write_bytes(content)
        results.append(read_and_load(path))
    assert not all(results)


@pytest.mark.parametrize("broken", ["index", "part"])
def test_a_damaged_index_or_part_gives_tensors_or_one_line(broken: str, tmp_path: Path) -> None:
    state = net().state_dict()
    index, part = tmp_path / "model.safetensors.index.json", tmp_path / "model-00002-of-00002.safetensors"
    names = {"model-00001-of-00002.safetensors": list(state)[:3], part.name: list(state)[3:]}
    for name, own in names.items():
        (tmp_path / name).write_bytes(save({one: state[one] for one in own}))
    places = {one: name for name, own in names.items() for one in own}
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}))
    assert read_and_load(index)
    target = index if broken == "index" else part
    whole = target.read_bytes()
    results = []
    for content in itertools.islice(damaged(whole, broken), DAMAGED // 4):
        target.write_bytes(content)
        results.append(read_and_load(index))
    assert not all(results)


# Tensors of every kind: either they come back as they were, or they are refused by name.
DTYPES = [dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)]
LAYOUTS = ("plain", "transposed", "expanded", "sliced", "sparse", "csr", "quantised", "meta", "parameter", "negated")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def tensor_of(dtype: torch.dtype, layout: str, shape: list[int]) -> torch.Tensor | None:
    """A tensor of that kind, or None where torch has none."""
    try:
        plain = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)
        made: dict[str, Callable[[], torch.Tensor]] = {
            "plain": lambda: plain,
            "transposed": lambda: plain.t(),
            "expanded": lambda: plain.reshape(-1)[:1].expand(3),
            "sliced": lambda: plain.reshape(-1)[1::2],
            "sparse": plain.to_sparse,
            "csr": plain.to_sparse_csr,
            "quantised": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
            "meta": lambda: plain.to("meta"),
            "parameter": lambda: nn.Parameter(plain, requires_grad=False),
            "negated": lambda: torch._neg_view(plain),
        }
        tensor = made[layout]()
        torch_bytes(tensor)
    except (RuntimeError, TypeError, NotImplementedError, IndexError, KeyError):
        return None
    return tensor


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        NAMES, st.tuples(st.sampled_from(DTYPES), st.sampled_from(LAYOUTS), st.lists(st.integers(0, 3), max_size=3)),
        min_size=1, max_size=4,
    ),
    st.booleans(),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_kind_come_back_or_are_named(
    tmp_path: Path, kinds: dict[str, tuple[torch.dtype, str, list[int]]], zipped: bool
) -> None:
    made = {name: tensor_of(*kind) for name, kind in kinds.items()}
    state = {name: tensor for name, tensor in made.items() if tensor is not None}
    path = tmp_path / "w.pt"
    try:
        path.write_bytes(torch_bytes(state, zipped))
    except (RuntimeError, ValueError, AttributeError, KeyError):
        return  # torch itself cannot write it
    readable = state and not any(kinds[name][1] in ("sparse", "csr", "quantised", "meta", "negated") for name in state)
    if not readable:
        with pytest.raises(InputError) as raised:
            weights.read(path)
        one_plain_line(raised.value, path)
        return
    got = weights.read(path)
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        if tensor.numel() and not tensor.is_neg():
            bits = [
                one.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)
                for one in (got[name], tensor)
            ]
            assert torch.equal(*bits)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("1.weight", lambda tensor: tensor.to_sparse(), "1.weight is sparse"),
        ("1.weight", lambda tensor: tensor.to("meta"), "1.weight is on the device meta, without values"),
        ("1.weight", lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "1.weight is quantised"),
        ("1.weight", lambda tensor: tensor.to(torch.complex64), "1.weight has complex numbers"),
        ("1.weight", lambda tensor: tensor.to(torch.int32), "1.weight has numbers of type int32, the network float32"),
        ("1.weight", lambda tensor: tensor > 0, "1.weight has numbers of type bool"),
        ("1.weight", lambda tensor: tensor / 0, "1.weight holds a NaN or an infinity"),
        ("1.weight", lambda tensor: tensor.double() * 1e300, "1.weight holds a NaN or an infinity"),
        ("1.running_var", lambda tensor: tensor * float("nan"), "1.running_var holds a NaN"),
        ("1.weight", lambda tensor: tensor.sum(), r"1.weight has shape \(\), not \(2,\)"),
        ("1.weight", lambda tensor: tensor.double(), None),
        ("1.weight", lambda tensor: tensor.half(), None),
        ("1.weight", lambda tensor: tensor.bfloat16(), None),
        ("1.num_batches_tracked", lambda tensor: tensor.float(), None),
    ],
)
def test_every_kind_of_weight_is_loaded_or_refused_by_name(
    tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], complaint: str | None
) -> None:
    model, path = net(), tmp_path / "w.pt"
    state = {**model.state_dict(), name: change(model.state_dict()[name])}
    path.write_bytes(torch_bytes(state))
    if complaint is None:
        weights.load_strictly(model, weights.read(path), path)
        assert model.state_dict()[name].dtype == net().state_dict()[name].dtype
        return
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=complaint) as raised:
        weights.load_strictly(model, weights.read(path), path)
    one_plain_line(raised.value, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "nothing was copied"


def test_a_file_without_batch_counters_loads_as_torchs_strict_loading_does(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in net().state_dict().items() if "num_batches" not in name}
    path = tmp_path / "w.pt"
    path.write_bytes(torch_bytes(state))
    model = net()
    weights.load_strictly(model, weights.read(path), path)
    assert weights.select(weights.open_file(path), model).state.keys() == state.keys()
    two = nn.Sequential(net(), nn.BatchNorm2d(2))
    partial = {name: tensor for name, tensor in two.state_dict().items() if name != "1.num_batches_tracked"}
    with pytest.raises(InputError, match=r"1 names are missing \(first: \['1.num_batches_tracked'\]"):
        weights.load_strictly(two, partial, path)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_scalars_of_both_generations_of_numpy_may_stand_beside_weights(tmp_path: Path, module: bytes) -> None:
    content = torch_bytes({"state_dict": net().state_dict(), "best": np.float64(0.5)}, zipped=False)
    assert b"numpy._core.multiarray\n" in content
    path = tmp_path / "w.pt"
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", module + b"\n"))
    assert torch.equal(weights.read(path)["3.bias"], net().state_dict()["3.bias"])


class Configuration(dict[str, Any]):
    """A configuration of another package, which the reading process does not have."""


def test_entries_of_classes_that_are_not_installed_do_not_matter(tmp_path: Path) -> None:
    configuration = Configuration(lr=0.1, folder=Path("x"), nested=Configuration(a=1))
    content = torch_bytes({"state_dict": net().state_dict(), "cfg": configuration}, zipped=False)
    path = tmp_path / "w.pt"
    path.write_bytes(content.replace(b"Configuration\n", b"NoSuchClass__\n"))
    assert weights.read(path).keys() == net().state_dict().keys()
