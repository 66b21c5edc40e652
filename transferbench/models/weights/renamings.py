"""Names that other projects give to the parameters of networks which are here under torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Iterable

RENOFEATION = "MobileNetV2's layer1 to layer5 of Renofeation's code taken as torchvision's features"
"""The notes of files whose names were translated."""

DENSENET = "norm.1, conv.1, norm.2, conv.2 of torchvision's older DenseNets taken as norm1, conv1, norm2, conv2"
_DENSE = re.compile(r"(?P<before>(?:.*\.)?denselayer\d+\.(?:norm|conv))\.(?P<number>[12])\.(?P<rest>\w+)")
_STAGE = re.compile(r"(?P<before>(?:.*\.)?)layer(?P<stage>[1-5])\.(?P<block>\d+)\.(?P<rest>.+)")
_FIRST = (0, 4, 7, 11, 17)
"""The number among torchvision's `features` of each stage's first block: the stages have 4, 3, 4, 6 and 2 blocks."""
_LAST = 18


def renamed(own: Iterable[str], names: Iterable[str]) -> tuple[dict[str, str], str]:
    """({name in the network's style: name in the file}, the note) of a file whose names do not fit; empty where they
    are no known project's (`own` are the network's names)."""
    own, names = list(own), list(names)
    for translate, note in ((of_mobilenet, RENOFEATION), (of_densenet, DENSENET)):
        found = translate(own, names)
        if found:
            return found, note
    return {}, ""


def of_densenet(own: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """{name among torchvision's: name in the file} of a DenseNet of before torch 0.4.1, as torchvision's own weights
    are named still. Empty where the network is no DenseNet."""
    names = list(names)
    if not any(".denselayer1.norm1." in name for name in own) or not any(map(_DENSE.fullmatch, names)):
        return {}
    translated = {_DENSE.sub(r"\g<before>\g<number>.\g<rest>", name): name for name in names}
    return translated if len(translated) == len(names) else {}


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
