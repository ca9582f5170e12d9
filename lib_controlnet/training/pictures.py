"""Pictures and control maps at the size of a training: read, turned upright, resized, cut."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..core.errors import UnitError
from ..core.images import TURNED, eight_bits, undecodable
from .errors import TrainingError

Pixels = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OTHERS = (".gif", ".heic", ".heif", ".avif", ".jfif", ".jxl", ".jp2", ".psd", ".tga", ".svg", ".dng", ".cr2", ".cr3",
          ".nef", ".arw")  # fmt: skip
"""Pictures too, of kinds that are not read."""
_BUCKET = 64
_MOST_STRETCHED = 2.5


def read_picture(source: Path | bytes, name: str) -> Pixels:
    """(H, W, 3) RGB uint8 of a file or its content, upright, transparent parts on black. Raises TrainingError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            opened.load()  # PIL turns TIFF by itself then, and says so
            turned = TURNED.get(_orientation(opened))
            upright = _shallow(opened) if turned is None else _shallow(opened).transpose(turned)
            if "A" in upright.getbands() or "transparency" in upright.info:
                clear = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear)
            return np.array(upright.convert("RGB"))
    except UnitError as error:
        raise TrainingError(f'the picture "{name}" cannot be read: {error.problem}', field="data", found=error.found,
                            remedy=error.remedy or "replace or remove it") from error  # fmt: skip
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise TrainingError(
            f'the picture "{name}" cannot be read',
            field="data",
            found=undecodable(error),
            remedy="replace or remove it",
        ) from error


def _shallow(image: Image.Image) -> Image.Image:
    """A picture of a deep grey mode as "L", scaled by what its mode can hold and never by what it happens to hold: all
    maps of a set must mean the same. Raises UnitError for floats and 32-bit numbers of an unknown range."""
    if image.mode != "F" and (image.mode != "I" or image.format == "PNG"):
        return eight_bits(image)
    values = np.asarray(image)
    full = 1 if image.mode == "F" else 65535
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > full:
        kind = "floats" if full == 1 else "32-bit numbers"
        raise UnitError(
            f"its {kind} have no known range",
            found=f"{values.min():g} to {values.max():g}",
            remedy=f"save all maps as 8-bit or 16-bit PNG, or as {kind} from 0 to {full}, scaled alike",
        )
    return Image.fromarray((values.astype(np.float64) * (255 / full)).round().astype(np.uint8))


def header_size(source: BinaryIO) -> tuple[int, int]:
    """(width, height) of an upright picture from its header. Raises OSError, ValueError or SyntaxError for none."""
    with Image.open(source) as opened:
        width, height = opened.size
        return (height, width) if _orientation(opened) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF's; 1 where there is none. Phones write EXIF that no reader understands: then it says nothing."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except (ValueError, TypeError, SyntaxError, OSError, struct.error):
        return 1


@lru_cache(maxsize=4096)
def training_size(size: tuple[int, int], resolution: int, aspect: str) -> tuple[int, int]:
    """(width, height) at which a picture of `size` is trained.

    "crop" is the square; "buckets" the shape nearest to the picture's among those whose sides are multiples of 64
    pixels and whose area is at most that of the square (kohya's and NovelAI's buckets).
    """
    if aspect == "crop":
        return resolution, resolution
    wanted = math.log(size[0] / size[1])
    return min(_buckets(resolution), key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))


def _buckets(resolution: int) -> list[tuple[int, int]]:
    step = min(_BUCKET, resolution)
    found = [(resolution, resolution)]
    for width in range(step, int(resolution * _MOST_STRETCHED), step):
        height = resolution * resolution // width // step * step
        if height and max(width / height, height / width) <= _MOST_STRETCHED:
            found += [(width, height), (height, width)]
    return sorted(set(found), key=lambda shape: (shape[0] * shape[1], shape), reverse=True)


def as_kept(pixels: Pixels) -> Pixels:
    """(H, W, 3) RGB of a map that a preprocessor made: as it is once it was a file, a mask in it being transparency."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return read_picture(stream.getvalue(), "map")


def fitted(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resized until it covers `size` (width, height) and cut from the middle; (height, width, 3) uint8.

    Bilinear with antialiasing, as torchvision's Resize and CenterCrop in the training scripts of diffusers.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    scale = max(size[0] / width, size[1] / height)
    across, down = max(size[0], round(width * scale)), max(size[1], round(height * scale))
    image = Image.fromarray(pixels).resize((across, down), Image.Resampling.BILINEAR)
    left, top = (across - size[0]) // 2, (down - size[1]) // 2
    return np.array(image.crop((left, top, left + size[0], top + size[1])))


def as_tensor(pictures: Sequence[Pixels]) -> Tensor:
    """(n, 3, h, w) float32 in 0..1 of pictures of one size."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def as_pixels(pictures: Tensor) -> list[Pixels]:
    """Pictures (n, 3, h, w) in -1..1 as (h, w, 3) uint8."""
    return list(((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
