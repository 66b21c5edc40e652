"""Names that other projects give to the parameters of networks which are here under torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Iterable

RENOFEATION = "MobileNetV2's layer1 to layer5 of Renofeation's code taken as torchvision's features"
"""The note of a file whose names were translated."""

_STAGE = re.compile(r"(?P<before>(?:.*\.)?)layer(?P<stage>[1-5])\.(?P<block>\d+)\.(?P<rest>.+)")
_FIRST = (0, 4, 7, 11, 17)
"""The number among torchvision's `features` of each stage's first block: the stages have 4, 3, 4, 6 and 2 blocks."""
_LAST = 18


def of_mobilenet(own: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """{name among torchvision's: name in the file} of a MobileNetV2 whose stages are `layer1` to `layer5`, as in
    fe_mobilenet.py of Renofeation's code. Empty where the network is no MobileNetV2 (`own` are its names)."""
    if not any(f"features.{_LAST}.0." in name for name in own):
        return {}
    names = list(names)
    renamed = {}
    for name in names:
        match = _STAGE.fullmatch(name)
        if match is None:
            renamed[name] = name
        else:
            number = _FIRST[int(match["stage"]) - 1] + int(match["block"])
            renamed[f"{match['before']}features.{number}.{match['rest']}"] = name
    # Two names of one parameter are no checkpoint of that code.
    return renamed if len(renamed) == len(names) else {}
