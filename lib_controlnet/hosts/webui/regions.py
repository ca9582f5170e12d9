"""Where in the picture a unit acts: its region mask, or the mask that a host of the Forge family takes for one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.inputs import says_where
from ...core.preprocessors import PreprocessorSpec
from ...core.units import ControlNetUnit
from ...engine.generation import Picture, Region
from .pictures import HOST_MODES, crop_box, cropped, crops, host_mask, over_white, sources

Pixels = NDArray[np.uint8]


def unit_region(p: Any, unit: ControlNetUnit, region: Pixels) -> Pixels:
    """A region mask (h, w), stretched over the picture as it is, and cut where the picture is cut."""
    if not crops(p, unit):
        return region
    mask = host_mask(p)
    box = crop_box(p, mask)
    if box is None:
        return region
    stretched = Image.fromarray(region).resize(mask.size, Image.Resampling.BILINEAR)
    return _filled(stretched.crop(box), int(p.width), int(p.height))


def _filled(mask: Image.Image, width: int, height: int) -> Pixels:
    """ "Resize and fill" as the host does it, but bilinear: its Lanczos would leave ripples where a region is 0."""
    wide = width / height < mask.width / mask.height
    inner = (width, mask.height * width // mask.width) if wide else (mask.width * height // mask.height, height)
    resized = np.asarray(mask.resize(inner, Image.Resampling.BILINEAR), np.uint8)
    left, top = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    return np.pad(resized, ((top, height - inner[1] - top), (left, width - inner[0] - left)), mode="edge")


def region_of_mask(p: Any, unit: ControlNetUnit, spec: PreprocessorSpec) -> Region | None:
    """The mask of a unit, or for one without a picture that of the job, where its preprocessor needs none.

    As the built-in ControlNet of Forge, Neo, reForge and Classic does it: the job's mask counts as it was drawn,
    neither inverted nor blurred; stretched over the picture by the nearest pixel, it goes the picture's way.
    """
    if unit.image is not None:
        image, mask, mode = unit.image, unit.mask, unit.resize_mode
        if mask is None or not (mask > 5).any() or not says_where(image, requires_mask=spec.requires_mask):
            return None
    else:
        source, drawn = next(iter(sources(p)), None), getattr(p, "image_mask", None)
        if spec.requires_mask or source is None or drawn is None:
            return None
        image, mask = np.empty((source.height, source.width), np.uint8), over_white(drawn)[:, :, 0]
        mode = HOST_MODES[int(getattr(p, "resize_mode", 0))]
    if not crops(p, unit):
        return Region(_nearest(mask, image.shape[1], image.shape[0]), mode)
    stretched = _nearest(mask, int(p.width), int(p.height))  # as large as the picture is after its crop
    cut = cropped(p, Picture(np.repeat(stretched[:, :, None], 3, axis=2), None, mode))
    return Region(cut.image[:, :, 0], mode)


def _nearest(mask: Pixels, width: int, height: int) -> Pixels:
    resized = cv2.resize(np.ascontiguousarray(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)
