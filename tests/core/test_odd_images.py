"""Odd pictures are read or refused with a sentence: damaged, truncated, animated, tiny, of any mode, with any EXIF."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.images import _without_exif, is_empty, read_mask, read_picture, read_rgb

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (24, 40, 3), np.uint8))
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def encoded(kind: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read_or_refused(content: bytes) -> np.ndarray | None:
    """(H, W, 3), or None where it is refused with a short, plain sentence."""
    try:
        pixels = read_rgb(base64.b64encode(content).decode())
    except UnitError as error:
        text = str(error)
        assert "What to do" in text or "Found" in text
        assert len(text) < 700
        assert "object at 0x" not in text
        assert "BytesIO" not in text
        return None
    assert pixels.ndim == 3
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused_or_whole(kind: str) -> None:
    """What lacks only bytes that say nothing (a GIF's or JPEG's end mark) may be read; never a part of a picture."""
    content = encoded(kind)
    whole = read_rgb(content)
    for kept in sorted({*range(0, 60), *range(60, len(content), max(1, len(content) // 60)), len(content) - 1}):
        pixels = read_or_refused(content[:kept]) if kept else None
        assert pixels is None or np.array_equal(pixels, whole), kept


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(content))


def exif(body: bytes) -> bytes:
    return encoded("JPEG", exif=b"Exif\x00\x00" + body)


def orientation(value: int, tag_type: int = 3, count: int = 1) -> bytes:
    return b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHII", 0x0112, tag_type, count, value) + b"\x00" * 4


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientations_are_pils(kind: str, value: int) -> None:
    data = Image.Exif()
    data[0x0112] = value
    content = encoded(kind, exif=data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(read_rgb(content), np.asarray(expected.convert("RGB")))


ODD_EXIF = {
    "no header": b"",
    "not TIFF": b"garbage",
    "cut header": b"II*\x00",
    "far directory": b"II*\x00\xff\xff\xff\x7f",
    "own directory": b"II*\x00\x00\x00\x00\x00",
    "a directory of 65535": b"II*\x00\x08\x00\x00\x00\xff\xff",
    "orientation 0": orientation(0),
    "orientation 99": orientation(99),
    "orientation as text": orientation(6, tag_type=2),
    "orientation as fraction": orientation(8, tag_type=5),
    "orientation as double": orientation(8, tag_type=12),
    "orientation of an unknown type": orientation(6, tag_type=99),
    "no orientation": orientation(6, count=0),
    "orientations": orientation(8, count=5),
    "orientations without end": orientation(6, count=0xFFFFFFFF),
    "wrong order": b"XX*\x00\x08\x00\x00\x00",
}


@pytest.mark.parametrize("case", ODD_EXIF)
def test_odd_exif_does_not_hide_the_picture(case: str) -> None:
    content = exif(ODD_EXIF[case])
    pixels = read_rgb(content)
    assert pixels.shape in ((24, 40, 3), (40, 24, 3))
    assert np.array_equal(np.sort(pixels.ravel()), np.sort(read_rgb(encoded("JPEG")).ravel()))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08"]))
def test_any_exif_is_survived(body: bytes, header: bytes) -> None:
    assert read_rgb(exif(header + body)).size == 24 * 40 * 3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_one_pixel_wide(kind: str, size: tuple[int, int]) -> None:
    pixels = read_or_refused(encoded(kind, Image.new("RGB", size, "red")))
    assert pixels is not None
    assert pixels.shape[:2] == size[::-1]
    assert pixels[0, 0, 0] > 200


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_an_animations_pictures_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    content = encoded(kind, frames[0], save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert read_rgb(content)[4, 4, 0] > 200


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_bombs_are_refused_before_they_go_off() -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n"
    assert read_or_refused(start + header + png_chunk(b"IDAT", zlib.compress(b"\x00" * 1000))) is None
    small = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    text = png_chunk(b"zTXt", b"a\x00\x00" + zlib.compress(b"\x00" * 50_000_000, 9))
    read_or_refused(start + small + text + png_chunk(b"IDAT", zlib.compress(b"\x00" * 200)) + png_chunk(b"IEND", b""))


def test_text_longer_than_any_picture_is_refused_by_its_length() -> None:
    with pytest.raises(UnitError, match=r"too large.*letters of base64"):
        read_rgb("A" * 20_000, max_pixels=1000)


@pytest.mark.parametrize("mode", ["HSV", "CMYK", "YCbCr", "1", "I;16B", "RGBX", "PA"])
def test_modes_that_come_from_files_or_callers(mode: str) -> None:
    assert read_rgb(Image.new(mode, (5, 4))).shape == (4, 5, 3)


def test_a_mode_that_pil_cannot_convert_is_named() -> None:
    with pytest.raises(UnitError, match="save it as RGB"):
        read_rgb(Image.new("LAB", (5, 4)))


URIS = {
    "data:image/png;base64,": True,
    "data:;base64,": True,
    "DATA:image/png;charset=utf-8;base64,": True,
    "data:image/svg+xml;base64,": True,
    "data:image/png,": False,
    "data:text/html,<b>": False,
    "data:,": False,
    "data:": False,
    "data:image/png;base64": False,
}


@pytest.mark.parametrize("prefix", URIS)
def test_data_uris(prefix: str) -> None:
    text = prefix + base64.b64encode(encoded("PNG")).decode()
    if URIS[prefix]:
        assert np.array_equal(read_rgb(text), np.asarray(PICTURE))
    else:
        with pytest.raises(UnitError):
            read_rgb(text)


def nested(depth: int, kind: type) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind is list else {"image": value}
    return value


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 900, 50_000])
@pytest.mark.parametrize("kind", [list, dict])
def test_deep_nesting_is_no_picture(depth: int, kind: type) -> None:
    value = nested(depth, kind)
    for read in (read_picture, read_rgb, read_mask):
        with pytest.raises(UnitError) as caught:
            read(value)
        assert len(str(caught.value)) < 600
    assert not is_empty(value)
    while isinstance(value, (list, dict)):  # taken apart from outside, or Python frees it recursively
        value = value[0] if isinstance(value, list) else value["image"]


@pytest.mark.parametrize("case", ODD_EXIF)
def test_a_jpeg_without_its_exif_is_the_picture(case: str) -> None:
    """For versions of Pillow that refuse a file for its EXIF."""
    content = exif(ODD_EXIF[case])
    bare = _without_exif(content)
    assert b"Exif" not in bare
    assert np.array_equal(read_rgb(bare), read_rgb(encoded("JPEG")))
    assert _without_exif(bare) == bare
    assert _without_exif(content[:30])[:2] == content[:2]
    assert _without_exif(encoded("PNG")) == encoded("PNG")
