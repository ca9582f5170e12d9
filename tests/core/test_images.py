"""Pictures in every form a caller sends, compared with PIL's own conversion; and what must be refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.images import eight_bits, read_file, read_mask, read_picture, read_rgb

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def over_white(image: Image.Image) -> np.ndarray:
    rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:;base64,", "data:image/png;charset=x;base64,"])
def test_base64_with_and_without_prefix(prefix: str) -> None:
    assert np.array_equal(read_rgb(prefix + encoded(Image.fromarray(RGB))), RGB)


def test_base64_with_line_breaks_and_without_padding() -> None:
    text = encoded(Image.fromarray(RGB)).rstrip("=")
    broken = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    assert np.array_equal(read_rgb(broken), RGB)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read_rgb(encoded(Image.fromarray(RGB), kind, **options)), RGB)


def test_transparency_becomes_white() -> None:
    rgba = Image.fromarray(np.dstack([RGB, GREY]), "RGBA")
    for value in (rgba, encoded(rgba), np.asarray(rgba)):
        assert np.abs(read_rgb(value).astype(int) - over_white(rgba)).max() <= 1


def test_palette_with_transparent_colour() -> None:
    image = Image.fromarray(GREY).quantize(8)
    image.info["transparency"] = 0
    text = encoded(image, "PNG", transparency=0)
    loaded = Image.open(io.BytesIO(base64.b64decode(text)))
    assert loaded.mode == "P"
    assert np.array_equal(read_rgb(text), over_white(loaded))
    assert (read_rgb(text) == 255).all(axis=2).any()


def test_camera_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = encoded(Image.fromarray(RGB), "PNG", exif=exif)
    assert np.array_equal(read_rgb(text), np.rot90(RGB, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBX", "HSV"])
def test_modes_as_pil_converts_them(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    assert np.abs(read_rgb(image).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    text = encoded(Image.fromarray(levels))
    assert read_rgb(text)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read_rgb(levels)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, np.dstack([GREY] * 3)),
        (GREY[..., None], np.dstack([GREY] * 3)),
        (RGB, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.float32) / 255, RGB),
        (RGB.astype(np.float32), RGB),
        (GREY > 127, np.dstack([(GREY > 127) * np.uint8(255)] * 3)),
    ],
)
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    result = read_rgb(array)
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected)


def test_result_is_the_callers_copy() -> None:
    source = RGB.copy()
    result = read_rgb(source)
    source[:] = 0
    assert np.array_equal(result, RGB)


@pytest.mark.parametrize("value", [None, "", "  ", {}, {"image": "", "mask": None}, {"image": None, "mask": ""}])
def test_nothing_is_no_picture(value: object) -> None:
    assert read_picture(value) is None


@pytest.mark.parametrize("form", ["dict", "pair", "tuple", "list of dicts"])
def test_picture_with_mask(form: str) -> None:
    forms = {
        "dict": {"image": RGB, "mask": GREY},
        "pair": [RGB, GREY],
        "tuple": (encoded(Image.fromarray(RGB)), encoded(Image.fromarray(GREY))),
        "list of dicts": [{"image": RGB, "mask": GREY}],
    }
    picture = read_picture(forms[form])
    assert picture is not None
    assert picture.mask is not None
    assert np.array_equal(picture.pixels, RGB)
    assert np.array_equal(picture.mask, GREY)


def test_drawn_layer_masks_by_its_alpha() -> None:
    layer = np.zeros((6, 9, 4), np.uint8)
    layer[2, 3] = (255, 255, 255, 255)
    mask = read_mask(encoded(Image.fromarray(layer, "RGBA")))
    assert mask.sum() == 255
    assert mask[2, 3] == 255


def test_opaque_mask_is_its_first_channel() -> None:
    assert np.array_equal(read_mask(np.dstack([RGB, np.full((6, 9), 255, np.uint8)])), RGB[..., 0])


def bomb(width: int, height: int) -> str:
    """A PNG whose header promises width x height."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes((width // 8 + 1) * 8)))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")).decode()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://example.org/a.png", "web addresses"),
        ("file:///etc/passwd", "web addresses"),
        ("/etc/passwd", "by path"),
        ("/home/me/picture.png", "by path"),
        ("C:\\pictures\\a.png", "by path"),
        ("C:/pictures/a.jpg", "by path"),
        ("picture.png", "by path"),
        ("../a.webp", "by path"),
        ("~/a", "by path"),
        ("!!not base64!!", "not base64"),
        ("aGVsbG8gd29ybGQ=", "not a complete picture"),
        ("A", "not base64"),
        (bomb(20000, 20000), "too large"),
        (bomb(60000, 60000), "too large"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 5, 2), np.uint8), "shape"),
        (np.zeros((5,), np.uint8), "shape"),
        (np.full((2, 2), np.nan), "within"),
        (np.full((2, 2), -3), "within"),
        (np.full((2, 2), 300), "within"),
        (np.full((2, 2), "x"), "numbers"),
        (3, "not a picture"),
        ([RGB], "a list"),
        ([RGB, GREY, GREY], "a list"),
        ([], "a list"),
        ([{"image": RGB}, {"image": RGB}], "one picture"),
        ({"image": RGB, "msk": GREY}, "keys"),
        ({"mask": GREY}, "no image"),
        ({"image": RGB, "mask": GREY[:3]}, "size"),
    ],
)
def test_refused(value: object, words: str) -> None:
    with pytest.raises(UnitError) as caught:
        read_picture(value)
    assert words in str(caught.value)


def test_damaged_bytes_are_said_without_the_programs_own_objects() -> None:
    with pytest.raises(UnitError) as caught:
        read_picture("aGVsbG8gd29ybGQ=")
    assert caught.value.found == "11 bytes (they begin as no picture does, or the file is damaged)"


def test_path_that_happens_to_be_base64_is_named_as_it_was_sent() -> None:
    with pytest.raises(UnitError, match="by path") as caught:
        read_picture("/etc/passwd")
    assert caught.value.found == "/etc/passwd"


@pytest.mark.parametrize("side", [9000, 20000, 60000])
def test_bombs_come_with_a_remedy(side: int) -> None:
    with pytest.raises(UnitError, match="too large") as caught:
        read_picture(bomb(side, side))
    assert "make it smaller" in caught.value.remedy


def test_truncated_file_is_refused() -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    text = encoded(noise)
    with pytest.raises(UnitError, match="not a complete picture"):
        read_picture(text[: len(text) // 2 // 4 * 4])


def test_postscript_is_not_opened() -> None:
    text = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").decode()
    with pytest.raises(UnitError, match="not a complete picture"):
        read_picture(text)


def test_limit_is_the_callers() -> None:
    with pytest.raises(UnitError, match="too large"):
        read_picture(RGB, max_pixels=53)
    assert read_picture(RGB, max_pixels=54) is not None


# -- deep greys ----------------------------------------------------------------------------------------------------

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def deep(dtype: Any, top: float, suffix: str) -> bytes:
    """A ramp from 0 to `top` in a file of that number type."""
    buffer = io.BytesIO()
    levels = RAMP.astype(np.float64) * (top / 255)
    array = levels.astype(dtype) if np.issubdtype(dtype, np.floating) else levels.round().astype(dtype)
    Image.fromarray(array).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("dtype", "top", "suffix"),
    [
        (np.int32, 255, "TIFF"),
        (np.int32, 65535, "TIFF"),
        (np.uint16, 65535, "TIFF"),
        (np.uint16, 65535, "PNG"),
        (np.float32, 1, "TIFF"),
        (np.float32, 255, "TIFF"),
        (np.float32, 65535, "TIFF"),
        (np.uint8, 255, "TIFF"),
    ],
)
def test_deep_greys_are_scaled_by_their_range(tmp_path: Path, dtype: Any, top: float, suffix: str) -> None:
    content = deep(dtype, top, suffix)
    (tmp_path / "picture").write_bytes(content)
    opened = Image.open(io.BytesIO(content))
    for read in (
        read_rgb(base64.b64encode(content).decode()),
        read_rgb(opened),
        read_file(tmp_path / "picture"),
        np.asarray(eight_bits(opened).convert("RGB")),
    ):
        assert np.abs(read[..., 0].astype(int) - RAMP).max() <= 1


def test_a_dark_deep_png_stays_dark() -> None:
    """16-bit files carry their range, so that 255 of 65535 is nearly black whatever PIL calls the mode."""
    assert read_rgb(deep(np.uint16, 255, "PNG")).max() == 1


@pytest.mark.parametrize("values", [(-5, 200), (0, 70000), (0.0, np.nan), (0.0, np.inf), (-1.0, 1.0)])
def test_deep_greys_without_a_known_range_are_refused(values: tuple[float, float]) -> None:
    dtype = np.int32 if all(isinstance(value, int) for value in values) else np.float32
    buffer = io.BytesIO()
    Image.fromarray(np.array([values] * 2, dtype)).save(buffer, "TIFF")
    with pytest.raises(UnitError, match="pixel values must be within"):
        read_rgb(buffer.getvalue())


MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pil_shows_what_was_drawn(mode: str) -> None:
    """A white half beside a black one."""
    halves = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 4, 1))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(halves).astype(np.uint16) * 257)
    elif mode in ("RGBa", "La"):
        image = halves.convert({"RGBa": "RGBA", "La": "LA"}[mode]).convert(mode)
    elif mode in ("HSV", "CMYK", "YCbCr", "RGBX"):
        image = halves.convert("RGB").convert(mode)
    elif mode == "PA":
        image = halves.convert("P").convert("PA")
    else:
        image = halves.convert(mode)
    assert image.mode == mode
    seen = read_rgb(image)
    assert seen[0, 0].max() <= 1
    assert seen[0, -1].min() >= 254
