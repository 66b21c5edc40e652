"""Downloads of weights: all files of a model or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transferbench.base import atomic_files
from transferbench.base.errors import InputError


def fetch(
    targets: Sequence[Path], get: Callable[[int, Path], object], check: Callable[[Sequence[Path]], object]
) -> None:
    """Download all files or none: `get(k, path)` writes the k-th to a temporary path, `check(paths)` validates them.

    Then the files are moved to `targets`. After an error no file and no folder remains. Errors of `get` become
    InputErrors, errors of `check` are raised as they are.
    """
    with atomic_files.temporary(targets[0].parent) as folder:
        paths = [folder / target.name for target in targets]
        for number, path in enumerate(paths):
            try:
                get(number, path)
            except InputError:
                raise
            except Exception as error:  # every downloader has errors of its own
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"weights {targets[number]}: the download failed ({reason}); nothing was kept"
                ) from None
        check(paths)
        for path, target in zip(paths, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
