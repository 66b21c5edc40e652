"""Takes the logits out of what a model returns: a dictionary, a tuple, or an object with a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from transferbench.base.errors import InputError

Output = str | int
"""The key or field, or the position in a tuple, of the logits."""

ONE_LOGIT = (
    "; a binary model of one logit z [n, 1] has the two logits 0 and z: return torch.cat([torch.zeros_like(z), z], 1)"
)
"""What to do with a model whose answer is a number."""


class LogitsOf(nn.Module):
    """The model with one part of its output: `model(x)["logits"]`, `model(x).logits`, or `model(x)[0]`."""

    def __init__(self, model: Callable[..., Any], output: Output) -> None:
        super().__init__()
        self.model, self.output = model, output
        # A module's method has the module's parameters.
        owner = getattr(model, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) else None
        self.training = bool(getattr(model, "training", getattr(owner, "training", False)))

    def forward(self, x: Tensor) -> Any:
        return part(self.model(x), self.output)


def with_output(model: object, output: object) -> LogitsOf:
    """A module, a function or a victim with one part of its output. InputError for what names no part."""
    if isinstance(output, bool) or not isinstance(output, str | int) or output == "":
        raise InputError(f'output={output!r}: give a key or a field as text ("logits"), or a position in a tuple')
    inner: Any = getattr(model, "model", model) if hasattr(model, "card") else model
    if not callable(inner):
        raise InputError(f"the model must be a module or a function of the images, not {type(inner).__name__}")
    return LogitsOf(inner, output)


def part(given: Any, output: Output) -> Any:
    """The part of a model's output. InputError, with what there is, where it has no such part."""
    if isinstance(output, int):
        if isinstance(given, tuple | list) and -len(given) <= output < len(given):
            return given[output]
    elif isinstance(given, Mapping):
        if output in given:
            return given[output]
    elif not isinstance(given, Tensor) and hasattr(given, output):
        return getattr(given, output)
    raise InputError(f"the model's output has no part {output!r}: it is {described(given)}")


def described(given: Any) -> str:
    """What a model returns, for a message: its type, with keys or fields that hold tensors."""
    kind = type(given).__name__
    if isinstance(given, Mapping):
        return f"{kind} of {', '.join(repr(str(key)) for key in list(given)[:8]) or 'nothing'}"
    if isinstance(given, tuple | list) and not hasattr(given, "_fields"):
        return f"{kind} of {len(given)}"
    fields = [name for name, value in _fields(given) if isinstance(value, Tensor)]
    return f"{kind} with {', '.join(fields[:8])}" if fields else kind


def _fields(given: Any) -> list[tuple[str, Any]]:
    if hasattr(given, "_asdict"):
        return list(given._asdict().items())
    return list(vars(given).items()) if hasattr(given, "__dict__") and not isinstance(given, Tensor) else []


_WHERE = " (of python:<module>:<function>: <function>.output = ...)"
"""Where the command line takes an output."""


def advice(given: Any) -> str:
    """How to name the logits in what a model returns; empty where nothing in it could be logits."""
    if isinstance(given, Mapping):
        names = [str(key) for key, value in given.items() if isinstance(value, Tensor) and value.dim() == 2]
    elif isinstance(given, tuple | list) and not hasattr(given, "_fields"):
        positions = [at for at, value in enumerate(given) if isinstance(value, Tensor) and value.dim() == 2]
        return f"; output={positions[0]} takes that one{_WHERE}" if positions else ""
    else:
        names = [name for name, value in _fields(given) if isinstance(value, Tensor) and value.dim() == 2]
    chosen = "logits" if "logits" in names else names[0] if names else ""
    return f'; output="{chosen}" takes that part{_WHERE}' if chosen else ""
