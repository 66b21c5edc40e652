"""A public network as attacks that hold it alone use it: its outputs by name, from a fast copy where one agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.attacks.source_attack import Change
from transferbench.base.errors import InputError
from transferbench.engine.search_model import SearchModel, as_is, copy_of
from transferbench.models.features import Layers, changed_channels, channels_first, output_of, submodule

_CLOSE = 1e-4
"""Maximum difference of a copy's features, as a share of their range, on the sample."""

LOGITS, PENULTIMATE, STEM, STAGES, CONVOLUTIONS = "logits", "penultimate", "stem", "stages", "convolutions"
PLACES = {"low": 0.15, "middle": 1 / 3, "late": 0.93}
"""Places of layers as shares of the way from the first stage to the last: of four stages (ResNets) the first, second
and fourth, of MobileNetV2's five features.3, .6 and .18, of a ViT's twelve blocks 2, 4 and 10."""


class SourceModel:
    """`source(images, "logits", "late")` gives named outputs (attacks/source_attack.SourceNetwork).

    `rows` is the number of rows that passed through the network and its copies to compare them.
    """

    def __init__(
        self, model: nn.Module, layers: Layers, copied: SearchModel | None = None, plain: SearchModel | None = None
    ) -> None:
        """`copied` gives logits and penultimate features, `plain`, in which modules are still there, layers."""
        self.model, self.named, self.rows = model, layers, 0
        self._copied, self._plain = copied, plain or as_is(model)

    @classmethod
    def prepare(cls, model: nn.Module, layers: Layers, sample: Tensor, copyable: bool = True) -> SourceModel:
        """For an eval-mode model; `sample` [B, ...] are images on which a copy has to agree with it.

        `copyable` is false for models whose outputs vary from call to call or with the batch.
        """
        if not copyable:
            return cls(model, layers)
        search, plain = copy_of(model, sample), copy_of(model, sample, fold=False)
        made = cls(model, layers, search if search.copied else None, plain)
        made.rows = search.rows + plain.rows
        if made._copied is not None and layers.head:
            with torch.no_grad():
                found = made(sample, PENULTIMATE)[PENULTIMATE]
                expected = cls(model, layers)(sample, PENULTIMATE)[PENULTIMATE]
            made.rows += 2 * len(sample)
            spread = max(float(expected.max() - expected.min()), 1e-6)
            if expected.shape != found.shape or float((expected - found).abs().max()) > _CLOSE * spread:
                made._copied = None
        return made

    @property
    def is_copy(self) -> bool:
        """Whether logits and penultimate features come from a copy."""
        return self._copied is not None

    def __call__(self, x: Tensor, *names: str, changes: Mapping[str, Change] = {}) -> dict[str, Tensor]:
        resolved = {name: self.layers(name)[0] for name in names}
        if not changes and set(names) <= {LOGITS, PENULTIMATE} and self._copied is not None:
            # In a traced copy only leaves are modules: other layers are read from one that was not traced.
            return _Pass(self._copied.module, self.named, names, {}).run(self._copied.network, x)
        where = {self.layers(name)[0]: change for name, change in changes.items()}
        found = _Pass(self._plain.module, self.named, tuple(resolved.values()), where).run(self._plain.network, x)
        return {name: found[resolved[name]] for name in names}

    def layers(self, *names: str) -> tuple[str, ...]:
        """The layers' modules. InputError for a name that the network does not have."""
        found: list[str] = []
        for name in names:
            if name == PENULTIMATE and not self.named.head:
                raise InputError(
                    f"the network {type(self.model).__name__} has no single linear layer at its end (an ensemble, a "
                    "distilled DeiT), and so no penultimate feature"
                )
            if name in (LOGITS, PENULTIMATE):
                found.append(name)
            elif name in (STAGES, STEM) or name in PLACES:
                stages = self.named.stages
                if not stages:
                    raise InputError(
                        f"the network {type(self.model).__name__} has no stages that are found by their names: name "
                        f"a module instead of {name}"
                    )
                if name == STEM:
                    found.append(name)
                else:
                    found += stages if name == STAGES else [stages[round(PLACES[name] * (len(stages) - 1))]]
            elif name == CONVOLUTIONS:
                found += self._convolutions
            else:
                submodule(self.model, name)
                found.append(name)
        return tuple(found)

    @cached_property
    def _convolutions(self) -> list[str]:
        found = [name for name, module in self.model.named_modules() if isinstance(module, nn.Conv2d)]
        if not found:
            raise InputError(f"the network {type(self.model).__name__} has no convolutions")
        return found


class _CompleteError(Exception):
    """All outputs that were asked for have been computed."""


class _Pass:
    """One pass that records outputs and ends at the last of them."""

    def __init__(self, model: nn.Module, layers: Layers, names: tuple[str, ...], changes: Mapping[str, Change]) -> None:
        self.model, self.named, self.names, self.changes = model, layers, names, changes
        self.found: dict[str, Tensor] = {}

    def run(self, network: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
        with self._hooks(x):
            try:
                output = network(x)
                if LOGITS in self.names:
                    self.found[LOGITS] = output
            except _CompleteError:
                pass
        missing = [name for name in self.names if name not in self.found]
        if missing:
            raise InputError(f"the network {type(self.model).__name__} does not use {missing[0]} in its pass")
        return self.found

    @contextmanager
    def _hooks(self, x: Tensor) -> Iterator[None]:
        with ExitStack() as hooks:
            for name, change in self.changes.items():
                hooks.callback(submodule(self.model, name).register_forward_hook(self._changing(change)).remove)
            for name in self.names:
                if name == PENULTIMATE:
                    head = submodule(self.model, self.named.head)
                    hooks.callback(head.register_forward_pre_hook(self._penultimate).remove)
                elif name == STEM:
                    hooks.callback(self._stem(x))
                elif name != LOGITS:
                    hooks.callback(submodule(self.model, name).register_forward_hook(self._recording(name)).remove)
            yield

    def _record(self, name: str, value: Tensor) -> None:
        # The first time, should a module be used twice.
        self.found.setdefault(name, value)
        if len(self.found) == len(set(self.names)) and LOGITS not in self.names:
            raise _CompleteError

    def _penultimate(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._record(PENULTIMATE, inputs[0].flatten(1))

    def _recording(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self._record(name, channels_first(output_of(output), self.named))

        return hook

    def _changing(self, change: Change) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _, __, output: changed_channels(output, self.named, change)

    def _stem(self, x: Tensor) -> Callable[[], None]:
        """Record what enters the first stage; what leaves it, where it takes the image itself or tokens."""
        first = submodule(self.model, self.named.stages[0])

        def entering(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            given = output_of(inputs)
            if given.dim() == 4 and given.shape[1:] != x.shape[1:]:
                self._record(STEM, channels_first(given, self.named))

        def leaving(_: nn.Module, __: Any, output: Any) -> None:
            if STEM not in self.found:
                self._record(STEM, channels_first(output_of(output), self.named))

        handles = [first.register_forward_pre_hook(entering), first.register_forward_hook(leaving)]

        def remove() -> None:
            for handle in handles:
                handle.remove()

        return remove
