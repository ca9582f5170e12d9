"""Reading, resizing, tiling into a grid, and saving of pictures."""

from __future__ import annotations

import math
from typing import Any

from modules import script_callbacks, shared
from modules.image_files import encode_user_comment, read_info_from_image, save_image, save_image_with_geninfo
from PIL import Image, ImageColor, ImageOps

from lib_controlnet.core.images import eight_bits

__all__ = [
    "encode_user_comment",
    "fix_image",
    "flatten",
    "image_grid",
    "read",
    "read_info_from_image",
    "resize_image",
    "save_image",
    "save_image_with_geninfo",
]

LANCZOS = Image.Resampling.LANCZOS


def _rows(count: int, batch_size: int) -> int:
    if shared.opts.n_rows > 0:
        return int(shared.opts.n_rows)
    if shared.opts.n_rows == 0:
        return batch_size
    if not shared.opts.grid_prevent_empty_spots:
        return round(math.sqrt(count))
    return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)


def image_grid(imgs: list[Image.Image], batch_size: int = 1, rows: int | None = None) -> Image.Image:
    """All pictures in one, row by row; smaller ones centred in their cell."""
    rows = min(_rows(len(imgs), batch_size) if rows is None else rows, len(imgs))
    params = script_callbacks.ImageGridLoopParams(imgs, math.ceil(len(imgs) / rows), rows)
    script_callbacks.image_grid_callback(params)
    w, h = max(x.width for x in imgs), max(x.height for x in imgs)
    background = ImageColor.getcolor(shared.opts.grid_background_color, "RGB")
    grid = Image.new("RGB", (params.cols * w, params.rows * h), background)
    for i, img in enumerate(params.imgs):
        left, top = i % params.cols * w, i // params.cols * h
        grid.paste(img, (left + (w - img.width) // 2, top + (h - img.height) // 2))
    return grid


def _resized(im: Image.Image, w: int, h: int, upscaler_name: str | None) -> Image.Image:
    larger = max(w / im.width, h / im.height)
    plain = upscaler_name in (None, "None") or im.mode == "L"
    if larger > 1.0 and not plain:
        named = [x for x in shared.sd_upscalers if x.name == upscaler_name]
        upscaler = (named or shared.sd_upscalers)[0]
        im = upscaler.scaler.upscale(im, larger, upscaler.data_path)
    return im if im.size == (w, h) and not plain else im.resize((w, h), resample=LANCZOS)


def resize_image(
    resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: str | None = None
) -> Image.Image:
    """`im` in the new size: 0 stretched, 1 covering and cut at the centre, 2 inside with edges continued."""
    upscaler_name = upscaler_name or shared.opts.upscaler_for_img2img
    if resize_mode == 0:
        return _resized(im, width, height, upscaler_name)
    ratio, source = width / height, im.width / im.height
    by_width = ratio > source if resize_mode == 1 else ratio < source
    by_height = ratio <= source if resize_mode == 1 else ratio >= source
    w = width if by_width else im.width * height // im.height
    h = height if by_height else im.height * width // im.width
    resized = _resized(im, w, h, upscaler_name)
    result = Image.new("RGB", (width, height))
    left, top = width // 2 - w // 2, height // 2 - h // 2
    result.paste(resized, (left, top))
    if resize_mode != 1 and ratio < source and top > 0:
        above = resized.resize((width, top), box=(0, 0, width, 0))
        below = resized.resize((width, top), box=(0, resized.height, width, resized.height))
        result.paste(above, (0, 0))
        result.paste(below, (0, top + h))
    elif resize_mode != 1 and ratio > source and left > 0:
        before = resized.resize((left, height), box=(0, 0, 0, height))
        after = resized.resize((left, height), box=(resized.width, 0, resized.width, height))
        result.paste(before, (0, 0))
        result.paste(after, (left + w, 0))
    return result


def flatten(img: Image.Image, bgcolor: str) -> Image.Image:
    """RGB; transparent parts take `bgcolor` ("#ffffff")."""
    if img.mode != "RGBA":
        return img.convert("RGB")
    behind = Image.new("RGBA", img.size, bgcolor)
    behind.paste(img, mask=img)
    return behind.convert("RGB")


def fix_image(image: Image.Image | None) -> Image.Image | None:
    """Turned as its EXIF data says; palette transparency becomes an alpha channel, deep greys become 8 bits."""
    if image is None:
        return None
    image = eight_bits(image)
    image = ImageOps.exif_transpose(image) or image
    if image.mode in ("RGB", "P") and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return image


def read(fp: Any, **kwargs: Any) -> Image.Image:
    image = fix_image(Image.open(fp, **kwargs))
    assert image is not None
    return image
