"""Versions of the packages that numbers depend on."""

from __future__ import annotations

import re
from importlib import metadata


def versions() -> dict[str, str]:
    """The packages that decide a training's numbers: this one, torch and numpy."""
    return {name: metadata.version(name) for name in ("transferbench", "torch", "numpy")}


def versions_of_network(id: str) -> dict[str, str]:
    """The packages that build a network and give its parameters their names, by its id (`timm:`, `transformers:`)."""
    named = [name for name in ("timm", "transformers") if re.search(rf"(^|:){name}:", id)]
    found: dict[str, str] = {}
    for name in named:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def packages() -> dict[str, str]:
    """This package and everything it requires, by name."""
    found = {"transferbench": metadata.version("transferbench")}
    for requirement in metadata.requires("transferbench") or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if "extra ==" not in requirement:
            found[name] = metadata.version(name)
    return dict(sorted(found.items()))
