"""The canonical form of what a caller gives: images, labels and ids as tensors, a model as a float32 network.

Everything the engine computes with passes through here once. What has no canonical form is refused with InputError.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from transferbench.base.errors import InputError
from transferbench.engine.row_counter import RowCounter

_SLACK = 1e-6
_MULTI_LABEL = (
    ": one-hot labels are y.argmax(1), and a multi-label model, which chooses no single class, is not evaluated"
)
_LOW_PRECISION = (torch.float16, torch.bfloat16)


def examples(x: object, y: object) -> tuple[Tensor, Tensor, bool]:
    """(images float32 [n, ...] in [0,1], labels int64 [n], whether values were clamped).

    Both may be torch tensors, numpy arrays or lists; images of any float type. The caller's objects are not changed,
    and the result shares no gradient with them. InputError for other images or labels.
    """
    images = _tensor("images", x)
    if not images.is_floating_point():
        hint = ": divide by 255" if images.dtype == torch.uint8 else ""
        raise InputError(f"images must be floats with values in [0,1], not {images.dtype}{hint}")
    if images.dim() < 2 or len(images) == 0:
        raise InputError(f"images have shape {tuple(images.shape)}: expected [n, ...] with n of at least 1")
    labels = _whole_numbers("labels", y)
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images but {len(labels)} labels")
    if not bool(torch.isfinite(images).all()):
        raise InputError("images hold a NaN or an infinity")
    low, high = float(images.min()), float(images.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(
            f"images lie in [{low:.6g}, {high:.6g}], not in [0,1]: scale them, and put normalisation into the model"
        )
    return images.float().clamp(0, 1), labels, low < 0 or high > 1


def device(given: object) -> torch.device:
    """The device of that name. InputError where there is none, or it is not on this machine."""
    try:
        found = torch.device(given)  # type: ignore[call-overload]
        torch.empty(1, device=found)
        if found.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, TypeError, AssertionError, ImportError, NotImplementedError) as error:
        raise InputError(f"device {given!r} cannot be used: {str(error).splitlines()[0][:100]}") from None
    return found


def ids(given: object, n: int) -> Tensor:
    """int64 [n]: distinct example ids; 0..n-1 for None."""
    if given is None:
        return torch.arange(n)
    numbers = _whole_numbers("ids", given)
    if len(numbers) != n or len(numbers.unique()) != n:
        raise InputError(f"ids must be {n} distinct whole numbers")
    return numbers


def _tensor(what: str, given: object) -> Tensor:
    """A dense, detached tensor of the same values."""
    if isinstance(given, Tensor):
        tensor = given
    elif isinstance(given, np.ma.MaskedArray):
        raise InputError(f"{what} must be a plain array: the mask of a masked one would be dropped")
    elif isinstance(given, np.ndarray | list | tuple):
        try:
            array = np.ascontiguousarray(given)
            # torch reads native byte order and no type longer than float64.
            wide = array.dtype.newbyteorder("=") == np.longdouble
            native = np.float64 if wide else array.dtype.newbyteorder("=")
            tensor = torch.as_tensor(array.astype(native, copy=False))
        except (TypeError, ValueError):
            raise InputError(f"{what} must be numbers in a rectangular array, torch's or numpy's") from None
    else:
        raise InputError(f"{what} must be a tensor or an array, not {type(given).__name__}")
    if "float8" in str(tensor.dtype) or "float4" in str(tensor.dtype):
        raise InputError(f"{what} are {tensor.dtype}, which holds no pixel to 1/255: give float32")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta" or tensor.is_complex():
        raise InputError(f"{what} must be a dense tensor of real numbers, not {_described(tensor)}")
    # A tensor of inference mode cannot take part in autograd; its copy can.
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _described(tensor: Tensor) -> str:
    kinds = {"quantised": tensor.is_quantized, "on the meta device": tensor.device.type == "meta"}
    return next((kind for kind, is_one in kinds.items() if is_one), f"{tensor.layout} {tensor.dtype}")


def _whole_numbers(what: str, given: object) -> Tensor:
    """int64 [n]."""
    tensor = _tensor(what, given)
    if tensor.dim() != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
        hint = _MULTI_LABEL if what == "labels" and tensor.dim() == 2 else ""
        raise InputError(
            f"{what} must be one-dimensional whole numbers, not {tensor.dtype} {tuple(tensor.shape)}{hint}"
        )
    return tensor.long()


def network(given: object) -> nn.Module:
    """The caller's model as a module, before it has been called.

    A function is a model too. InputError, with what to do, for anything else, and for a module that cannot be called
    or differentiated: in train mode, with uninitialised, meta or inference-mode parameters.
    """
    # A victim of `models.victims.load` is a card around its module.
    given = getattr(given, "model", given) if hasattr(given, "card") else given
    if isinstance(given, str):
        raise InputError(
            f"the model is the text {given!r}: give the network itself, or use `transferbench eval --model {given}`"
        )
    if isinstance(given, type) or not callable(given):
        raise InputError(f"the model must be a torch.nn.Module or a function of the images, not {_name(given)}")
    module = given if isinstance(given, nn.Module) else _Function(given)
    training = [name for name, part in module.named_modules() if getattr(part, "training", False)]
    if training and not isinstance(given, nn.Module):
        # The wrapper itself starts in train mode; a module that the function is bound to counts.
        training = [name.removeprefix("owner.") for name in training if name.startswith("owner")]
        module.training = False
    if training:
        where = f"sub-module {training[0]}" if training[0] not in ("", "owner") else "the model"
        raise InputError(f"{where} is in train mode ({len(training)} modules in all): call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(f"{name} has no shape yet (a lazy layer): call the model on an image once")
        if tensor.device.type == "meta":
            raise InputError(f"{name} is on the meta device and has no values: load the weights first")
        if tensor.is_inference() and isinstance(tensor, nn.Parameter):
            raise InputError(
                f"{name} was made under torch.inference_mode and has no gradients: make the model outside of it"
            )
    return module


def _name(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


class _Function(nn.Module):
    """A function of the images as a module; `owner` is the module that a bound method belongs to."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        owner = getattr(function, "__self__", None)
        if isinstance(owner, nn.Module):
            self.owner = owner

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Float32(nn.Module):
    """A network with float32 images and logits, whatever it computes in; its images are private copies."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        # Nothing here depends on values: the search model traces it.
        logits: Tensor = self.network(x.to(self.dtype, copy=True)).float()
        return logits


class Canonical:
    """`network`: maps float32 images to float32 logits and leaves them unchanged; `rows` passed through it to find out.

    The stated cast: weights in float16 or bfloat16 are evaluated in a copy in float32, which holds the same values;
    a network with any float64 weight gets float64 images (and is copied where it also has others); logits are rounded
    to float32. `low_precision`: the network computes in float16 or bfloat16 itself (autocast inside), where rows are
    rounded more coarsely.
    """

    def __init__(self, given: object, sample: Tensor) -> None:
        module = network(given)
        dtypes = {
            tensor.dtype for tensor in [*module.parameters(), *module.buffers()] if tensor.dtype.is_floating_point
        }
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtypes & {*_LOW_PRECISION} or (dtype == torch.float64 and len(dtypes) > 1):
            try:
                module = copy.deepcopy(module).to(dtype)
            except Exception as error:
                raise InputError(
                    f"the model has weights in {_names(dtypes)} and cannot be copied ({_first_line(error)}): "
                    "convert it with model.float()"
                ) from None
        counter = RowCounter(module)
        images = sample.to(dtype, copy=True)
        before = images._version
        with torch.no_grad():
            output = called(counter, images)
        # torch counts in-place operations, also those that are undone.
        changed = images._version != before
        # What is no tensor of floats is refused by the pre-flight in its own words.
        is_float = isinstance(output, Tensor) and output.is_floating_point()
        self.low_precision = is_float and output.dtype in _LOW_PRECISION
        plain = dtype == torch.float32 and not changed and (not is_float or output.dtype == torch.float32)
        self.network = module if plain or not is_float else Float32(module, dtype)
        self.rows = counter.rows


def called(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """The model's answer to the images. InputError with the first line of whatever it raises."""
    try:
        return model(x)
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        raise InputError(
            f"the model fails on {len(x)} images of shape {tuple(x.shape[1:])}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _names(dtypes: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
