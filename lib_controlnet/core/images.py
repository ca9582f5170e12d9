"""Pictures as callers give them (base64, arrays, PIL, pairs, dicts), read into uint8 arrays.

Nothing is opened by path or address: a caller of the HTTP API must not make the server read files or other hosts.
Sizes are checked in the file's header, before any pixel is decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import UnitError

log = logging.getLogger("ControlNet")

Pixels = NDArray[np.uint8]

MAX_PIXELS = 8192 * 8192
"""More than any host generates at once; a picture of this size takes 200 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Raster formats that need no outside program to decode (EPS would start Ghostscript)."""

_LONGEST = 6
"""Bytes that a picture's file may have for each pixel allowed: 16 bits of four channels, packed as badly as can be."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation of EXIF's undoes."""
_APP1 = 0xE1
"""The marker of a JPEG's segment that holds EXIF."""
_ORIENTATION = 0x0112

_DATA_URI = re.compile(r"^\s*data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"^\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PATH = re.compile(r"^\s*(?:~|\.{1,2}[/\\]|[a-z]:[/\\]|\\\\|/)|\.[a-z0-9]{2,5}\s*$", re.IGNORECASE)
_AS_BASE64 = "send the picture's bytes as base64, with or without a data:image/png;base64, prefix"


@dataclass(frozen=True, eq=False)
class Picture:
    """One input picture.

    `pixels`: (H, W, 3) uint8 RGB. `mask`: (H, W) uint8, 255 where masked, or None where the caller gave none.
    """

    pixels: Pixels
    mask: Pixels | None = None


def read_picture(value: object, *, max_pixels: int = MAX_PIXELS) -> Picture | None:
    """Read any form of a unit's `image`: see `read_rgb`, and `{"image", "mask"}`, `[image, mask]`, `[{"image", …}]`.

    None, "" and a dict whose image and mask are empty mean "no picture". Raises UnitError without a unit number.
    """
    if is_empty(value):
        return None
    if isinstance(value, Mapping):
        return _from_mapping(cast(Mapping[str, object], value), max_pixels)
    if isinstance(value, (list, tuple)):
        return _from_sequence(cast(Sequence[object], value), max_pixels)
    return Picture(read_rgb(value, max_pixels=max_pixels))


def read_rgb(value: object, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Base64 or data URI, PIL image, (H, W[, 1|3|4]) array -> (H, W, 3) uint8; transparent parts become white."""
    return _flatten(_read_channels(value, max_pixels))


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture file of this computer -> (H, W, 3) uint8. Raises UnitError with the reason."""
    try:
        if not path.is_file():
            raise UnitError("there is no such file, or it is a folder, a pipe or a link to nothing")
        content = path.read_bytes()
    except OSError as error:
        raise UnitError("the file cannot be opened", found=error.strerror or str(error)) from error
    if not content:
        raise UnitError("the file is empty")
    return read_rgb(content, max_pixels=max_pixels)


def eight_bits(image: Image.Image) -> Image.Image:
    """A picture of a deep grey mode (I, I;16, F) as "L"; one of any other mode as it is. Raises UnitError.

    16-bit files carry their range. 32-bit integers and floats carry none: what stays within 1, 255 or 65535 is taken to
    be of that range. PIL before 11 opens 16-bit PNGs in the mode of 32 bits.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    full = 65535 if image.mode.startswith("I;") or image.format == "PNG" else None
    return Image.fromarray(_to_levels(np.asarray(image), full))


def read_mask(value: object, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The same forms -> (H, W) uint8: the alpha channel where it says something, else the first channel.

    Alpha first is the host's own rule for masks (`create_binary_mask`): a brush layer is transparent where nothing
    was drawn, so laying it over white would mark everything.
    """
    if isinstance(value, Mapping):
        inner = cast(Mapping[str, object], value)
        value = inner["mask"] if not is_empty(inner.get("mask")) else inner.get("image")
    pixels = _read_channels(value, max_pixels)
    if pixels.shape[2] == 4 and int(pixels[..., 3].min()) < 255:
        return np.ascontiguousarray(pixels[..., 3])
    return np.ascontiguousarray(pixels[..., 0])


def is_empty(value: object) -> bool:
    """True for what clients send to say "no picture": None, "", {} and a dict of such values."""
    if isinstance(value, Mapping):
        return all(_is_nothing(item) for item in cast(Mapping[str, object], value).values())
    return _is_nothing(value)


def _is_nothing(value: object) -> bool:
    """Not looked into any deeper: a request may be nested as deep as Python can count."""
    if isinstance(value, Mapping):
        return not value
    return value is None or (isinstance(value, (str, bytes)) and not value.strip())


def same_size(pixels: Pixels, mask: Pixels) -> None:
    """Raise UnitError unless picture and mask have one height and width."""
    if pixels.shape[:2] != mask.shape[:2]:
        sizes = " and ".join(f"{array.shape[1]}x{array.shape[0]}" for array in (pixels, mask))
        raise UnitError("picture and mask differ in size", field="mask", found=sizes, remedy="send both in one size")


def _from_mapping(value: Mapping[str, object], max_pixels: int) -> Picture:
    odd = sorted(str(key) for key in value if key not in ("image", "mask"))
    if odd:
        raise UnitError("a picture given as a dict has the keys image and mask only", found=", ".join(odd))
    if is_empty(value.get("image")):
        raise UnitError("there is a mask but no image", remedy="send the picture that the mask belongs to as image")
    pixels = read_rgb(value["image"], max_pixels=max_pixels)
    if is_empty(value.get("mask")):
        return Picture(pixels)
    mask = read_mask(value["mask"], max_pixels=max_pixels)
    same_size(pixels, mask)
    return Picture(pixels, mask)


def _from_sequence(value: Sequence[object], max_pixels: int) -> Picture:
    dicts = [cast(Mapping[str, object], item) for item in value if isinstance(item, Mapping)]
    if dicts and len(dicts) == len(value):
        if len(dicts) > 1:
            raise UnitError(
                "a unit takes one picture", found=f"{len(dicts)} pictures", remedy="use one unit for each picture"
            )
        return _from_mapping(dicts[0], max_pixels)
    if len(value) != 2 or dicts:
        raise UnitError(
            "a list must be [image, mask] or hold dicts with image and mask",
            found=f"a list of {len(value)}",
            remedy="send the picture itself, or a list of exactly image and mask",
        )
    return _from_mapping({"image": value[0], "mask": value[1]}, max_pixels)


def _read_channels(value: object, max_pixels: int) -> Pixels:
    """Any single picture -> (H, W, 1..4) uint8, grey (with alpha) or RGB (with alpha)."""
    if isinstance(value, str):
        return _from_bytes(_decode(value, max_pixels), max_pixels, value)
    if isinstance(value, (bytes, bytearray)):
        return _from_bytes(bytes(value), max_pixels)
    if isinstance(value, np.ndarray):
        return _from_array(cast(NDArray[Any], value), max_pixels)
    if isinstance(value, Image.Image):
        _check_size(value.width, value.height, max_pixels)
        return _from_pil(value)
    raise UnitError("this is not a picture", found=type(value).__name__, remedy=_AS_BASE64)


def _decode(text: str, max_pixels: int) -> bytes:
    if len(text) > _LONGEST * max_pixels * 4 // 3 + 1000:
        raise _too_large(f"{len(text)} letters of base64", max_pixels)
    if _ADDRESS.match(text):
        raise UnitError("web addresses are not fetched", found=text[:80], remedy=_AS_BASE64)
    body = "".join(_DATA_URI.sub("", text, count=1).split())
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        if _looks_like_path(text):
            raise _path_error(text) from error
        raise UnitError("this text is not base64", found=text[:40], remedy=_AS_BASE64) from error


def _from_bytes(content: bytes, max_pixels: int, text: str = "") -> Pixels:
    """Check the header's size, then decode completely. `text`: what the caller sent, base64 or taken for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            image = _opened(content)
            _check_size(image.width, image.height, max_pixels)
            image.load()  # pyright: ignore[reportUnknownMemberType]
            return _from_pil(image)
    except Image.DecompressionBombError as error:
        raise _too_large(str(error), max_pixels) from error
    except UnitError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error, ValueError…
        if _looks_like_path(text):
            raise _path_error(text) from error
        raise UnitError(
            "the bytes are not a complete picture",
            found=f"{len(content)} bytes ({undecodable(error)})",
            remedy=f"send one of {', '.join(FORMATS)}",
        ) from error


def undecodable(error: Exception) -> str:
    """What a decoder says; PIL names what it cannot identify by the object that holds the bytes."""
    if isinstance(error, UnidentifiedImageError):
        return "they begin as no picture does, or the file is damaged"
    return f"{type(error).__name__}: {error}"


def _opened(content: bytes) -> Image.Image:
    """A JPEG whose EXIF is damaged without it: Pillow before 10 does not know such a file, whose picture is whole."""
    try:
        return Image.open(io.BytesIO(content), formats=_known_formats())
    except UnidentifiedImageError:
        bare = _without_exif(content)
        if bare == content:
            raise
        return Image.open(io.BytesIO(bare), formats=["JPEG"])


def _without_exif(content: bytes) -> bytes:
    """A JPEG without the segments APP1; what is no JPEG as it is. Format: ITU-T T.81, B.1.1."""
    if not content.startswith(b"\xff\xd8"):
        return content
    kept, place = [content[:2]], 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"", b"\xda"):
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if content[place + 1] != _APP1:
            kept.append(content[place:end])
        place = max(end, place + 4)
    return b"".join([*kept, content[place:]])


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _looks_like_path(text: str) -> bool:
    text = text.strip()
    return len(text) < 1024 and not text.startswith("/9j/") and _PATH.search(text) is not None  # JPEGs begin so


def _path_error(text: str) -> UnitError:
    return UnitError("files are not read by path", found=text.strip()[:80], remedy=_AS_BASE64)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnitError("the picture is empty", found=f"{width}x{height}")
    if width * height > max_pixels:
        raise _too_large(f"{width}x{height}", max_pixels)


def _too_large(found: str, max_pixels: int) -> UnitError:
    limit = f"at most {max_pixels // 1_000_000} megapixels are read"
    return UnitError("the picture is too large", found=found, remedy=f"make it smaller: {limit}")


def _from_pil(image: Image.Image) -> Pixels:
    if image.mode == "LAB":
        raise UnitError("pictures of the mode LAB are not read", remedy="save it as RGB")
    image = _upright(eight_bits(image), image)
    image = image.convert("LA") if image.mode == "La" else image  # from "La" PIL converts to nothing else
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in vars(image)["info"]
    if image.mode in ("1", "L") and not transparent:
        return np.array(image.convert("L"), dtype=np.uint8)[..., None]
    return np.array(image.convert("RGBA" if transparent else "RGB"), dtype=np.uint8)


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """`pixels` turned as the EXIF data of `image` say; damaged ones say nothing, as in browsers.

    PIL's own `exif_transpose` also writes the data anew, which fails for much that can be read.
    """
    try:
        turn = TURNED.get(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # noqa: BLE001 (struct.error, SyntaxError, KeyError and others, as the damage has it)
        log.debug("EXIF data that cannot be read: %s", error)
        turn = None
    return pixels if turn is None else pixels.transpose(turn)


def _from_array(array: NDArray[Any], max_pixels: int) -> Pixels:
    """(H, W) or (H, W, 1..4) of any number type -> (H, W, 1..4) uint8."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise UnitError(
            "an array must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)", found=str(array.shape)
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    if array.dtype == np.uint8:
        return np.array(array, dtype=np.uint8, order="C")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    whole = np.issubdtype(array.dtype, np.integer)
    return _to_levels(array, (65535 if array.dtype == np.uint16 else 255) if whole else None)


def _to_levels(array: NDArray[Any], full: int | None) -> Pixels:
    """Numbers of 0 to `full` -> uint8. None: the least of 1, 255 and 65535 that holds them all."""
    if array.dtype.kind not in "iuf":
        raise UnitError("an array must hold numbers", found=str(array.dtype))
    low, high = float(array.min()), float(array.max())
    if full is None:
        full = 1 if high <= 1 else 255 if high <= 255 else 65535
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > full:
        raise UnitError(f"pixel values must be within 0 and {full}", found=f"{low:g} to {high:g} ({array.dtype})")
    return np.rint(array.astype(np.float64) * (255.0 / full)).astype(np.uint8)


def _flatten(pixels: Pixels) -> Pixels:
    """(H, W, 1..4) -> (H, W, 3): grey is repeated, transparency is laid over white."""
    channels = pixels.shape[2]
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if channels == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255.0
    return np.rint(pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
