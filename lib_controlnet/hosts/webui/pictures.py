"""The picture a unit works on in A1111: its own or the img2img source, cropped as the host crops "only masked"."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import UnitError
from ...core.modes import ResizeMode
from ...core.preprocessors import PreprocessorSpec
from ...core.units import ControlNetUnit
from ...engine.generation import Picture

Pixels = NDArray[np.uint8]
HOST_MODES = (ResizeMode.just_resize, ResizeMode.crop_and_resize, ResizeMode.resize_and_fill, ResizeMode.just_resize)
"""By the host's `resize_mode` number; 3 is its latent upscale."""


def unit_pictures(p: Any, unit: ControlNetUnit, spec: PreprocessorSpec) -> list[Picture]:
    """The unit's picture, else the img2img sources with the host's mask and resize mode; empty without either.

    One for each frame, or key frame, of a film. A job with one source for each image of its batch has one picture for
    each; otherwise the first serves all.
    """
    if unit.frames is not None:
        frames = unit.frames.pictures(p, int(p.batch_size))
        pictures = [Picture(image, mask, unit.resize_mode) for image, mask in frames]
    elif unit.image is not None:
        pictures = [Picture(unit.image, unit.mask, unit.resize_mode)]
    else:
        pictures = [_source(p, image, spec) for image in sources(p)]
    return [cropped(p, picture) for picture in pictures] if crops(p, unit) else pictures


def host_mask(p: Any) -> Image.Image:
    """The job's mask as the host prepares it: `L`, binary, inverted and blurred where asked (`Img2Img.init`)."""
    from modules.processing import create_binary_mask
    from PIL import ImageOps

    mask = create_binary_mask(p.image_mask, round=getattr(p, "mask_round", True))
    if p.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    for blur, horizontal in ((p.mask_blur_x, True), (p.mask_blur_y, False)):
        if blur > 0:
            kernel = 2 * int(2.5 * blur + 0.5) + 1
            size = (kernel, 1) if horizontal else (1, kernel)
            mask = Image.fromarray(cv2.GaussianBlur(np.array(mask), size, blur))
    return mask


def sources(p: Any) -> list[Image.Image]:
    """One for each picture that the host will make of a batch: it makes no more than it has sources, if it has two."""
    images = [image for image in getattr(p, "init_images", None) or () if image is not None]
    return images if len(images) <= p.batch_size else images[:1]


def _source(p: Any, source: Image.Image, spec: PreprocessorSpec) -> Picture:
    image = over_white(source)
    mask: Pixels | None = None
    if spec.accepts_mask and getattr(p, "image_mask", None) is not None:
        mask = np.asarray(host_mask(p), np.uint8)
        if mask.shape != image.shape[:2]:
            raise UnitError(
                "the inpaint mask and the picture have different sizes",
                field="image",
                found=f"mask {mask.shape[1]}x{mask.shape[0]}, picture {image.shape[1]}x{image.shape[0]}",
                remedy="give both in one size",
            )
    return Picture(image, mask, HOST_MODES[int(getattr(p, "resize_mode", 0))])


def crops(p: Any, unit: ControlNetUnit) -> bool:
    """Whether the host inpaints "only masked" and the unit follows its crop (tiled upscales always do)."""
    if not getattr(p, "inpaint_full_res", False) or getattr(p, "image_mask", None) is None:
        return False
    return unit.crop_to_mask or is_upscale_script(p)


def is_upscale_script(p: Any) -> bool:
    """Whether a script upscales tile by tile; such scripts announce themselves in the infotext."""
    return any("upscale" in key.lower() and "hires" not in key.lower() for key in p.extra_generation_params)


def crop_box(p: Any, mask: Image.Image) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of what the host paints "only masked"; None where the mask is empty."""
    from modules import masking

    if mask.getbbox() is None:
        return None
    region = masking.get_crop_region(mask, p.inpaint_full_res_padding)  # every host has it; it fails for an empty mask
    return masking.expand_crop_region(region, p.width, p.height, mask.width, mask.height)


def cropped(p: Any, picture: Picture) -> Picture:
    """Each channel resized to the mask, cut to the crop region and resized to the job, all by the host's code."""
    mask = host_mask(p)
    box = crop_box(p, mask)
    if box is None:
        return picture

    def cut(channel: Pixels) -> Pixels:
        from modules import images

        image = images.resize_image(picture.resize_mode.host_index, Image.fromarray(channel), mask.width, mask.height)
        filled = images.resize_image(2, image.crop(box), p.width, p.height)
        return np.asarray(filled.convert("L"), np.uint8)  # the host fills on an RGB canvas

    image = np.stack([cut(np.ascontiguousarray(picture.image[:, :, c])) for c in range(3)], axis=2)
    return Picture(image, None if picture.mask is None else cut(picture.mask), picture.resize_mode)


def over_white(image: Image.Image) -> Pixels:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.asarray(image.convert("RGB"), np.uint8)
