"""Pictures as clients send them, whole, odd and broken."""

from __future__ import annotations

import base64
import functools
import io
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ODD_SIZES = ((1, 1), (1, 64), (64, 1), (3, 2), (1, 500), (500, 1), (700, 2))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def drawing(width: int = 64, height: int = 64) -> Image.Image:
    """A disc and a bar in colours on a gradient: no map of it is empty."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full_like(x, 90)], 2)
    image = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.1, height * 0.1, width * 0.6, height * 0.6], fill=(230, 30, 30), outline="white")
    draw.rectangle([width * 0.5, height * 0.5, width * 0.9, height * 0.9], fill=(20, 40, 220), outline="white")
    return image


def valid(random: Random) -> str:
    """A picture as base64, of some format and size."""
    size = random.choice(((64, 64), (64, 64), (96, 64), (40, 100)))
    kind = random.choice(FORMATS)
    prefix = random.choice(("", "", f"data:image/{kind.lower()};base64,"))
    return prefix + base64_of(saved(drawing(*size), kind))


def mask(random: Random) -> str:
    """A white rectangle on black, as large as the usual picture."""
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).rectangle([random.randrange(30), random.randrange(30), 60, 60], fill="white")
    return base64_of(saved(image))


def odd(random: Random) -> Any:
    """A picture of an odd size or mode, damaged, animated, or none at all."""
    kind = random.choice(FORMATS)
    content = saved(drawing(), kind)
    return random.choice(
        (
            lambda: base64_of(saved(drawing().resize(random.choice(ODD_SIZES)))),
            lambda: base64_of(saved(_of_mode(random.choice(MODES)), "TIFF")),
            lambda: base64_of(content[: random.randrange(len(content))]),
            lambda: base64_of(_damaged(content, random)),
            lambda: base64_of(saved(drawing(), "GIF", save_all=True, append_images=[drawing(), drawing()])),
            lambda: base64_of(saved(drawing(), "JPEG", exif=b"Exif\x00\x00" + random.randbytes(30))),
            lambda: base64_of(saved(Image.new("RGB", (64, 64), random.choice(("black", "white", "gray"))))),
            lambda: base64_of(random.randbytes(random.randrange(1, 200))),
            lambda: "data:image/svg+xml;base64," + base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            lambda: random.choice(
                ("http://127.0.0.1/a.png", "/etc/passwd", "a.png", "file:///etc/passwd", "none", "=")
            ),
            lambda: {"image": valid(random), "mask": random.choice((mask(random), None, "", 7))},
            lambda: [valid(random), mask(random)],
        )
    )()


def _of_mode(mode: str) -> Image.Image:
    return (
        Image.fromarray(np.asarray(drawing().convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else drawing().convert(mode)
    )


def _damaged(content: bytes, random: Random) -> bytes:
    body = bytearray(content)
    for _ in range(random.randrange(1, 6)):
        body[random.randrange(len(body))] = random.randrange(256)
    return bytes(body)
