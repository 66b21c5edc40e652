"""Copies a state dict into a network, with every name, shape and number checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from transferbench.base.errors import InputError
from transferbench.models.weights import names
from transferbench.models.weights.weights_file import StateDict, reading


def match_names(
    model: nn.Module, state: StateDict, unused: Iterable[str] = (), constants: Iterable[str] = ()
) -> StateDict:
    """The state dict under the model's own names, for loaders that know their files; `names.readings` says how. Of
    several copies of the network that behind the shortest of names.ATTRIBUTES is taken.

    Entries whose name ends with one of `unused` are dropped. Buffers whose name ends with one of `constants` keep the
    constructor's value where the state lacks them. `load_strictly` reports the names that then still differ.
    """
    unused, constants = tuple(unused), tuple(constants)
    found = names.readings(model, state, unused=unused, constants=constants)
    match = next((one for one in found if set(one.prefix.split(".")[:-1]) <= set(names.ATTRIBUTES)), None)
    if match is None or match.normalisation:
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = model.state_dict()
    defaults = {name: own[name] for name in own.keys() - names.required(model, own, constants)}
    return {**defaults, **{name: state[file_name] for name, file_name in match.names.items()}}


def load_strictly(model: nn.Module, state: StateDict, path: Path) -> None:
    """Copy the tensors into the model. InputError with the first name, shape, type or number that is wrong."""
    with reading(path):
        own = model.state_dict()
        missing, extra = sorted(names.required(model, state) - state.keys()), sorted(state.keys() - own.keys())
        if missing or extra:
            raise InputError(
                f"{len(missing)} names are missing (first: {missing[:3]}), {len(extra)} are not the network's (first: "
                f"{extra[:3]})"
            )
        counters = {name: tensor for name, tensor in own.items() if name not in state}
        # Nothing is copied before everything is checked.
        model.load_state_dict({**counters, **{name: _checked(name, state[name], own[name]) for name in state}})


def _checked(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """The tensor in the type of the network's own. InputError where it is no such tensor."""
    if tensor.shape != own.shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(own.shape)}")
    kinds = (("sparse", tensor.layout != torch.strided), ("quantised", tensor.is_quantized), ("meta", tensor.is_meta))
    for kind, applies in kinds:
        if applies:
            raise InputError(f"{name} is {kind}: save it as a plain tensor")
    if tensor.is_complex():
        raise InputError(f"{name} has complex numbers, the network real ones")
    # Averaged weights have averaged counters of batches, which no forward pass in eval mode uses.
    if tensor.is_floating_point() != own.is_floating_point() and not name.endswith(names.COUNTER):
        raise InputError(f"{name} has numbers of type {_type(tensor)}, the network {_type(own)}")
    converted = tensor.to(own.dtype) if own.is_floating_point() else tensor
    if converted.is_floating_point() and not bool(torch.isfinite(converted.float()).all()):
        raise InputError(f"{name} holds a NaN or an infinity")
    return converted


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
