"""A control map brought to the picture's size without destroying what it says.

A plain interpolation turns one-pixel edges into grey bands and class colours into classes that do not exist. Maps are
therefore told apart by their colours: 3 to 199 distinct ones are labels (nearest neighbour), two extreme ones are a
binary drawing (thresholded again, one-pixel edges thinned back to one pixel), the rest is a picture (area or cubic).
The rules and their order are those of sd-webui-controlnet, so that seeds made there give the same picture here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import UnitError
from .modes import ResizeMode

Pixels = NDArray[np.uint8]
Array = NDArray[Any]

LABEL_COLOURS = 200
"""From this many distinct colours on a map is a picture, below it (and above 2) a set of labels."""

MAX_PIXELS = 1 << 28
"""Larger intermediate maps are refused: a 1x5000 map cropped to 512x512 would need 1.3 gigapixels."""

_FIRST_BLOCK = 1 << 12
_BLOCK = 1 << 15
_OPENING = np.ones((3, 3), np.uint8)
_LINES = tuple(
    np.array(rows, np.uint8)
    for rows in (
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    )
)


def _rotations(*kernels: list[list[int]]) -> tuple[NDArray[np.int32], ...]:
    """Each kernel in its four orientations, orientation by orientation: the order decides which pixel goes first."""
    arrays = [np.array(kernel, np.int32) for kernel in kernels]
    return tuple(np.ascontiguousarray(np.rot90(array, turns)) for turns in range(4) for array in arrays)


# 1: foreground, -1: background, 0: either. The centre pixel is removed where a kernel fits.
_THINNING = _rotations([[-1, -1, -1], [0, 1, 0], [1, 1, 1]], [[0, -1, -1], [1, 1, -1], [0, 1, 0]])
_PRUNING = _rotations([[-1, -1, -1], [-1, 1, -1], [0, 0, -1]], [[-1, -1, -1], [-1, 1, -1], [-1, 0, 0]])
_THINNING_ROUNDS = 32


def pixel_perfect_resolution(image: Array, target_height: int, target_width: int, mode: ResizeMode) -> int:
    """The preprocessor resolution (short side in pixels, at least 1) at which a map needs no further scaling.

    `image` is (H, W) or (H, W, C); the target is the size of the base pass, not of the hires pass.
    """
    height, width = image.shape[:2]
    factors = (float(target_height) / float(height), float(target_width) / float(width))
    factor = min(factors) if mode is ResizeMode.resize_and_fill else max(factors)
    return max(1, round(factor * float(min(height, width))))


def fit_map(image: Array, width: int, height: int, mode: ResizeMode) -> Array:
    """A control map at (`height`, `width`).

    `image` is uint8: (H, W), (H, W, 1) or (H, W, 3), which gives (height, width, 3) uint8; or (H, W, 4), an inpaint
    map whose alpha is 255 where to paint, which gives (height, width, 4) float32 in 0..255: colours are not rounded
    and cubic interpolation may overshoot by a little; alpha is 0 or 255. Just Resize stretches. Crop and Resize cuts
    the centre. Resize and Fill pads with the median colour of the border (and alpha 255: the padding is to be painted).
    Raises `UnitError` for other shapes and types, and for a map too narrow to be cropped.
    """
    pixels = _checked(image)
    if mode is ResizeMode.just_resize:
        return high_quality_resize(pixels, (width, height))
    old_height, old_width = pixels.shape[:2]
    factors = (float(height) / float(old_height), float(width) / float(old_width))
    factor = min(factors) if mode is ResizeMode.resize_and_fill else max(factors)
    size = (max(1, round(old_width * factor)), max(1, round(old_height * factor)))
    if size[0] * size[1] > MAX_PIXELS:
        raise UnitError(
            f"a map of {old_width}x{old_height} pixels cannot be cropped to {width}x{height}",
            field="image",
            found=f"it would first grow to {size[0]}x{size[1]} pixels",
            remedy='use a picture that is less narrow, or the resize mode "Resize and Fill"',
        )
    resized = high_quality_resize(pixels, size)
    if mode is ResizeMode.resize_and_fill:
        return _padded(resized, _border_colour(pixels), width, height)
    top, left = ((a - b) // 2 for a, b in zip(resized.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(resized[max(0, top) :, max(0, left) :][:height, :width])


def high_quality_resize(image: Pixels, size: tuple[int, int]) -> Array:
    """`image` (H, W, 3) uint8 at `size` (width, height), in the way that suits its kind (see the module's text).

    (H, W, 4) gives float32, as `fit_map` says. The colours alone decide the interpolation of all four channels.
    """
    colours = image[:, :, :3]
    alpha = image[:, :, 3].astype(np.float32) if image.shape[2] == 4 else None
    resized: Array = colours if alpha is None else colours.astype(np.float32)
    if image.shape[:2] != (size[1], size[0]):
        count = distinct_colours(colours, LABEL_COLOURS)
        interpolation = _interpolation(count, image.shape[0] * image.shape[1], size)
        resized = cv2.resize(np.ascontiguousarray(resized), size, interpolation=interpolation)
        if alpha is not None:
            alpha = cv2.resize(alpha, size, interpolation=interpolation)
        if count == 2 and colours.min() < 16 and colours.max() > 240:
            grown = size[0] * size[1] > image.shape[0] * image.shape[1]
            resized = _binary(resized, thin=_is_line_drawing(colours), prune=grown)
    if alpha is None:
        return np.ascontiguousarray(resized)
    fitted = np.empty((*resized.shape[:2], 4), np.float32)
    fitted[:, :, :3] = resized
    fitted[:, :, 3] = np.where(alpha > 127, np.float32(255), np.float32(0))
    return fitted


def distinct_colours(image: Pixels, limit: int) -> int:
    """How many colours (H, W, 3) has, or `limit` if there are that many or more.

    Counts block by block by looking up the colours already seen, and stops at `limit`: a photograph is known after the
    first, small block, and where few colours are left to find the rest costs a look-up a pixel, or in even areas one
    where the colour changes.
    """
    flat = np.ascontiguousarray(image).reshape(1, -1, 3)
    seen = np.zeros(1 << 24, np.bool_)  # the system hands out its pages only where it is written to
    count, start, size = 0, 0, _FIRST_BLOCK
    while start < flat.shape[1]:
        # As little-endian words, whose high byte is alpha.
        packed = cv2.cvtColor(flat[:, start : start + size], cv2.COLOR_RGB2RGBA).view(np.uint32).ravel()
        changes = packed[1:] != packed[:-1]
        if 16 * np.count_nonzero(changes) < changes.size:
            packed = np.append(packed[1:][changes], packed[0])
        colours = packed & 0xFFFFFF
        known = seen.take(colours)
        if not known.all():
            fresh = np.unique(colours[~known])
            seen[fresh] = True
            count += int(fresh.size)
            if count >= limit:
                return limit
        start, size = start + size, _BLOCK
    return count


def _interpolation(colours: int, pixels: int, size: tuple[int, int]) -> int:
    if 2 < colours < LABEL_COLOURS:
        return cv2.INTER_NEAREST
    # Thinning below needs the single ridge that cubic interpolation leaves.
    return cv2.INTER_AREA if size[0] * size[1] < pixels else cv2.INTER_CUBIC


def _is_line_drawing(image: Pixels) -> bool:
    """True if a 3x3 opening erases more than half of the bright values: the lines are one or two pixels wide."""
    opened = cv2.dilate(cv2.erode(np.ascontiguousarray(image), _OPENING), _OPENING)
    return 2 * int(np.count_nonzero(opened < image)) > int(np.count_nonzero(image > 127))


def _binary(image: Array, *, thin: bool, prune: bool) -> Pixels:
    """(h, w, 3) with interpolated greys back to black and white, one-pixel lines back to one pixel."""
    grey = image.astype(np.float32).mean(axis=2).clip(0, 255).astype(np.uint8)
    if thin:
        grey = _ridges(grey)
    drawing = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1].astype(np.uint8)
    if thin:
        drawing = thin_lines(drawing, prune=prune)
    return np.repeat(drawing[:, :, None], 3, axis=2)


def _ridges(grey: Pixels) -> Pixels:
    """(h, w), zero where a pixel is not the greatest of three along any of the four directions."""
    kept = np.zeros(grey.shape, np.bool_)
    for line in _LINES:
        kept |= cv2.dilate(grey, line) == grey
    return np.where(kept, grey, np.uint8(0))


def thin_lines(drawing: Pixels, *, prune: bool) -> Pixels:
    """(h, w) of 0 and 255 with strokes peeled to one pixel, at most 32 layers; `prune` drops spurs of one pixel.

    Hit-or-miss thinning as in "High Quality Edge Thinning" (L. Zhang, 2023); the input is not changed.
    """
    thinned = np.array(drawing)
    for _ in range(_THINNING_ROUNDS):
        if not _peel(thinned, _THINNING):
            break
    if prune:
        _peel(thinned, _PRUNING)
    return thinned


def _peel(drawing: Pixels, kernels: tuple[NDArray[np.int32], ...]) -> bool:
    """Remove in place what each kernel in turn fits; True if anything was removed."""
    changed = False
    for kernel in kernels:
        hits = cv2.morphologyEx(drawing, cv2.MORPH_HITMISS, kernel)
        if cv2.countNonZero(hits):
            cv2.subtract(drawing, hits, dst=drawing)
            changed = True
    return changed


def _border_colour(image: Pixels) -> Array:
    """Median of the four border lines per channel (a corner counts twice), in the type that a resized map has."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    median = np.median(border, axis=0)
    if image.shape[2] == 4:
        median[3] = 255
        return median.astype(np.float32)
    return median.astype(np.uint8)


def _padded(image: Array, colour: Array, width: int, height: int) -> Array:
    canvas = np.empty((height, width, image.shape[2]), image.dtype)
    canvas[:] = colour
    top, left = max(0, height - image.shape[0]) // 2, max(0, width - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _checked(image: Array) -> Pixels:
    if image.dtype == np.uint8 and image.ndim in (2, 3) and image.size:
        planes = image if image.ndim == 3 else image[:, :, None]
        if planes.shape[2] in (3, 4):
            return planes
        if planes.shape[2] == 1:
            return np.repeat(planes, 3, axis=2)
    raise UnitError(
        "a control map must be an 8-bit picture with 1, 3 or 4 channels",
        field="image",
        found=f"an array of shape {image.shape} and type {image.dtype}",
        remedy="give (height, width, 3) of type uint8",
    )
