"""Maps that are pictures (tile, blur, recolour, what inpainting keeps), and those that keep only the colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.images import Pixels
from ..core.preprocessors import Detection
from .perceptual import SMALLEST, Perceptual
from .score import Field, Mask, Pair, Score, nothing, pair
from .ssim import WINDOW, ssim, ssim_map

_MOST_PSNR = 100.0
_BINS = 8
_WRONG = 32.0


@dataclass(frozen=True)
class Pictures:
    """PSNR (100 at most, as in ControlNet++), SSIM, and LPIPS where there is a network for it.

    perceptual: LPIPS's network, or why there is none.
    """

    kind: str = "pictures"
    main: str = "ssim"
    perceptual: Perceptual | str = "its network was not looked for"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"psnr": True, "ssim": True, "lpips": False}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`; adherence is SSIM, in pictures too small for it what the mean difference leaves of 1."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        a, b = maps.found.astype(np.float64), maps.wanted.astype(np.float64)
        similar = ssim(a / 255, b / 255, maps.inside).value
        off = float(np.abs(a - b)[maps.inside].mean())
        measured = {
            "size": maps.size,
            "psnr": f"dB, peak 255, {_MOST_PSNR:g} at most",
            "ssim": "SSIM, Gaussian window of 11 pixels, mean over RGB",
        }
        if similar is None:
            measured["ssim"] = f"not taken: what is scored is smaller than its window of {WINDOW} pixels"
        lpips, measured["lpips"] = self._lpips(maps)
        values = {"psnr": psnr(a[maps.inside], b[maps.inside]), "ssim": similar, "lpips": lpips}
        return Score(
            self.kind, values, measured, "psnr" if similar is None else self.main,
            1 - off / 255 if similar is None else max(0.0, similar), beside=() if lpips is None else ("lpips",),
        )  # fmt: skip

    def _lpips(self, maps: Pair) -> tuple[float | None, str]:
        """The value, and how it was taken or why not."""
        if isinstance(self.perceptual, str):
            return None, f"not taken: {self.perceptual}"
        if min(maps.wanted.shape[:2]) < SMALLEST:
            return None, f"not taken: the picture is smaller than {SMALLEST} pixels"
        text = "LPIPS v0.1 with AlexNet, less is more alike"
        more = "" if maps.whole else "; what is not scored made alike, places weighed by how much of them is scored"
        return self.perceptual.distance(maps.found, maps.wanted, maps.inside), text + more

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """SSIM of each pixel, from -1 where nothing is alike to 1."""
        maps = pair(found, wanted, inside)
        a, b = maps.found.astype(np.float64) / 255, maps.wanted.astype(np.float64) / 255
        if min(a.shape[:2]) < WINDOW:
            alike = 1 - np.abs(a - b).mean(axis=2) * 255 / _WRONG
        else:
            alike = 2 * ssim_map(a, b)[0].mean(axis=2) - 1
        return np.where(maps.inside, np.clip(alike, -1, 1), 0).astype(np.float32)


@dataclass(frozen=True)
class Colours:
    """Which colours there are, wherever they are: what of the two histograms overlaps (shuffle, reference)."""

    kind: str = "colours"
    main: str = "histogram"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"histogram": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        a, b = (_histogram(one[maps.inside]) for one in (maps.found, maps.wanted))
        overlap = float(np.minimum(a, b).sum())
        text = f"overlap of the histograms of RGB in {_BINS}x{_BINS}x{_BINS} bins, 0..1; places do not count"
        return Score(self.kind, {"histogram": overlap}, {"size": maps.size, "histogram": text}, self.main, overlap)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> None:
        """It has no places."""
        return None


@dataclass(frozen=True)
class Unknown:
    """A map of which nobody has said what it shows: the mean difference of its pixels, and no more."""

    kind: str = "unknown"
    main: str = "mean_difference"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"mean_difference": False}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`; adherence is what the mean difference leaves of 1."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        off = float(_difference(maps.found, maps.wanted)[maps.inside].mean())
        text = "mean absolute difference, 0..255; what this map shows is not known, so no metric of the field is used"
        measured = {"size": maps.size, "mean_difference": text}
        return Score(self.kind, {"mean_difference": off}, measured, self.main, 1 - off / 255)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """1 where the pixels are equal, 0 where they are 32 levels off, -1 from 64."""
        maps = pair(found, wanted, inside)
        off = _difference(maps.found, maps.wanted)
        return np.where(maps.inside, np.clip(1 - off / _WRONG, -1, 1), 0).astype(np.float32)


def psnr(a: Any, b: Any) -> float:
    """dB of two pictures in 0..255, 100 at most."""
    mean = float(np.square(a - b).mean())
    return _MOST_PSNR if mean == 0 else min(_MOST_PSNR, float(10 * np.log10(255**2 / mean)))


def _difference(a: Pixels, b: Pixels) -> Any:
    return np.abs(a.astype(np.float64) - b).mean(axis=2)


def _histogram(pixels: Any) -> Any:
    """Of pixels (n, 3): the share of each of the bins."""
    bins = (pixels.astype(np.int64) * _BINS // 256) @ np.array([_BINS * _BINS, _BINS, 1])
    return np.bincount(bins, minlength=_BINS**3) / len(pixels)
