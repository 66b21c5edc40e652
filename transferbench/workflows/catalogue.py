"""What `list` prints: every plugin, suite and public model by id, with one line. No torch, no pandas."""

from __future__ import annotations

from pathlib import Path

from transferbench.base import registry

_KINDS: dict[str, registry.Kind] = {
    "models": "models",
    "networks": "networks",
    "datasets": "data",
    "methods": "methods",
    "attacks": "attacks",
}


def lines(kind: str, data_dir: Path | None = None) -> dict[str, str]:
    """Id -> description, sorted. `data_dir` is where data sets' files are looked for."""
    if kind == "suites":
        from transferbench import suites

        return suites.available()
    entries = registry.entries(_KINDS[kind])
    descriptions = {id: _description(entry) for id, entry in entries.items()}
    if kind == "attacks":
        return {id: f"{line}{_parameters(entries[id])}" for id, line in descriptions.items()}
    if kind == "datasets":
        return {id: f"{_presence(entry, data_dir):<9}{descriptions[id]}" for id, entry in entries.items()}
    if kind == "methods":
        return {id: f"{line}{_needs(entries[id])}" for id, line in descriptions.items()}
    if kind != "models":
        return descriptions
    from transferbench.models import catalogue

    public = catalogue.lines()
    families = {id.partition(":")[0] for id in public} | {"RB"}
    others = {id: line for id, line in descriptions.items() if id not in families}
    return dict(sorted((public | others).items()))


def _parameters(entry: registry.Entry) -> str:
    """The parameters that `--attacks` may set, as it writes them: `; n_iter=100 restarts=0`."""
    known = {} if entry.problem else registry.parameters(entry)
    words = {name: ("yes" if value else "no") if isinstance(value, bool) else value for name, value in known.items()}
    return "; " + " ".join(f"{name}={value}" for name, value in words.items()) if words else ""


def _needs(entry: registry.Entry) -> str:
    """What a method needs of a network beside a linear classifier: `; the network needs batch norm`."""
    need = "" if entry.problem else registry.literal(entry, "NEEDS").get(entry.id, "")
    return f"; the network needs {need}" if need else ""


def _description(entry: registry.Entry) -> str:
    return f"cannot be used: {entry.problem}" if entry.problem else entry.description or "(no description)"


def _presence(entry: registry.Entry, root: Path | None) -> str:
    """`ready` for a data set that comes with a package, else whether its files are below the folder of data sets."""
    if entry.problem:
        return "broken"
    if not registry.literal(entry, "NEEDS").get(entry.id):
        return "any path" if entry.id == "folder" else "ready"
    return "missing" if registry.missing(entry, root or Path("data")) else "present"
