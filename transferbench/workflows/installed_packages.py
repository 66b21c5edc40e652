"""Installed versions of the packages that this one names, against the bounds that its metadata gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from transferbench.base.registry import reason


@dataclass(frozen=True)
class PackageState:
    """A required package. `version` is empty where it is not installed, `needs` is the bound (`>=2.6`), `problem` says
    what is wrong with it, empty where nothing is."""

    name: str
    version: str
    needs: str
    problem: str = ""


def required() -> list[PackageState]:
    """What the package itself requires, in the order of its metadata."""
    return [_state(one) for one in _requirements() if one.marker is None or one.marker.evaluate({"extra": ""})]


def extras() -> dict[str, list[PackageState]]:
    """What each optional extra requires beyond that, by the extra's name."""
    try:
        names = metadata.metadata("transferbench").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    own = [one for one in _requirements() if one.marker is not None and not one.marker.evaluate({"extra": ""})]
    return {
        name: [_state(one) for one in own if one.marker is not None and one.marker.evaluate({"extra": name})]
        for name in names
    }


def _requirements() -> Iterator[Requirement]:
    try:
        lines = metadata.requires("transferbench") or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            yield Requirement(line)
        except InvalidRequirement:  # of damaged metadata: what can be read is reported
            continue


def _state(requirement: Requirement) -> PackageState:
    name, needs = requirement.name, str(requirement.specifier)
    how = f"pip install '{name}{needs}'"
    try:
        # None where the metadata of an installation is damaged.
        version: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        return PackageState(name, "", needs, f"not installed: {how}")
    except Exception as error:  # metadata of somebody else's package
        return PackageState(name, "", needs, f"its metadata cannot be read ({reason(error)}): {how}")
    if not version:
        return PackageState(name, "", needs, f"its metadata names no version: {how}")
    try:
        fits = requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return PackageState(name, version, needs, "its version cannot be compared")
    return PackageState(name, version, needs, "" if fits else f"another version is needed: {how}")
