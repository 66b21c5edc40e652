"""Preprocessing and normalisation as the configurations of timm and transformers describe them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from transferbench.base.errors import InputError
from transferbench.models.networks.normalised import NONE, Normalisation

_BILINEAR, _BICUBIC = 2, 3
"""Pillow's numbers of the two resamplings."""


class ImageProcessor(NamedTuple):
    """What happens to an image: resizing and crop in RobustBench's notation, the side, then the normalisation."""

    preprocessing: str
    side: int
    normalisation: Normalisation


def of_timm(config: Any, side: int | None = None) -> ImageProcessor:
    """timm's evaluation transform of a configuration (PretrainedCfg), for another side with the same share of crop.

    InputError for an interpolation or a crop that has no notation here.
    """
    own = side or int(config.input_size[-1])
    mode, interpolation = config.crop_mode or "center", config.interpolation
    if interpolation not in ("bilinear", "bicubic") or mode not in ("center", "squash"):
        raise InputError(f"timm resizes for it by {interpolation} with the crop {mode}, which is not built here")
    resize = math.floor(own / (config.crop_pct or 0.875))
    bicubic = "Bicubic" if interpolation == "bicubic" else ""
    both = f"x{resize}" if mode == "squash" else ""
    text = f"{bicubic}Res{resize}{both}Crop{own}" if not (both and resize == own) else f"{bicubic}Res{own}"
    mean, std = (tuple(map(float, values)) for values in (config.mean, config.std))
    return ImageProcessor(text, own, Normalisation(mean, std))


def of_transformers(given: Mapping[str, Any]) -> ImageProcessor:
    """What a preprocessor_config.json says, of any version of transformers. InputError for what has no notation
    here."""
    if given.get("auto_map"):
        raise InputError("preprocessor_config.json: it names code of the repository, which is not run")
    normalisation = NONE
    try:
        if given.get("do_normalize", True):
            mean, std = (tuple(map(float, given[name])) for name in ("image_mean", "image_std"))
            normalisation = Normalisation.parse("/".join(",".join(map(repr, values)) for values in (mean, std)))
        if given.get("do_rescale", True) and abs(float(given.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
            raise InputError(f"preprocessor_config.json: rescale_factor {given['rescale_factor']} is not 1/255")
        if given.get("do_rescale") is False:
            raise InputError("preprocessor_config.json: it leaves pixels in 0..255 (do_rescale false)")
        text, side = _resizing(given)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"preprocessor_config.json: it is not as transformers writes it ({type(error).__name__}: {error})"
        ) from None
    return ImageProcessor(text, side, normalisation)


def _resizing(given: Mapping[str, Any]) -> tuple[str, int]:
    """(the notation, the side of the result)."""
    resample = int(given.get("resample", _BILINEAR))
    if resample not in (_BILINEAR, _BICUBIC):
        raise InputError(
            f"preprocessor_config.json: resampling {resample}; bilinear (2) and bicubic (3) are built here"
        )
    bicubic = "Bicubic" if resample == _BICUBIC else ""
    crops = bool(given.get("do_center_crop", False))
    crop = _square(given["crop_size"]) if crops else None
    if not given.get("do_resize", True):
        if crop is None:
            raise InputError("preprocessor_config.json: it neither resizes nor crops: nothing says the images' size")
        return f"Crop{crop}", crop
    size = given["size"]
    shortest = _shortest(size, crops)
    if shortest is None:
        both = _square(size)
        return (f"{bicubic}Res{both}", both) if crop is None else (f"{bicubic}Res{both}x{both}Crop{crop}", crop)
    share = given.get("crop_pct")
    if share is not None and crop is None:
        # ConvNeXt's: below 384 the shorter side becomes size / crop_pct, from which the size is cropped.
        if shortest >= 384:
            return f"{bicubic}Res{shortest}", shortest
        return f"{bicubic}Res{int(shortest / float(share))}Crop{shortest}", shortest
    if crop is None:
        raise InputError("preprocessor_config.json: it keeps the images' proportions, their size is not one size")
    return f"{bicubic}Res{shortest}Crop{crop}", crop


def _shortest(size: Any, crops: bool) -> int | None:
    """The shorter side that is asked for, where the proportions are kept; None where both sides are given."""
    if isinstance(size, dict):
        return int(size["shortest_edge"]) if "shortest_edge" in size else None
    # A single number of old versions: with a crop it is the shorter side, alone both sides.
    return int(size) if crops and not isinstance(size, list) else None


def _square(size: Any) -> int:
    """The side of a square size: a number, {"height": h, "width": h} or [h, h]."""
    sides = [size["height"], size["width"]] if isinstance(size, dict) else size if isinstance(size, list) else [size]
    if len(set(sides)) != 1 or int(sides[0]) < 1:
        raise InputError(f"preprocessor_config.json: the size {size} is not square")
    return int(sides[0])
