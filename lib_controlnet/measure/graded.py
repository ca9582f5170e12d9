"""Maps whose every pixel is a measure of something: depth, normals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.images import Pixels
from ..core.preprocessors import Detection
from .score import Field, Mask, Pair, Score, nothing, pair

_PLAIN = 1.0
"""A depth map that varies by less than this (of 0..255) is a plane, to which no other can be brought."""
_FAR_OFF = 32.0
"""Of 0..255: a depth that is wrong by so much is neither followed nor not."""
_TURNED = 45.0


@dataclass(frozen=True)
class Depth:
    """RMSE of 8 bits (ControlNet++), and the error that is left after the best scale and shift (MiDaS)."""

    kind: str = "depth"
    main: str = "correlation"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"rmse": False, "si_rmse": False, "correlation": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`; adherence is the correlation, where a wanted plane has none what RMSE leaves of 1."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        a, b = _grey(maps)
        a, b = a[maps.inside], b[maps.inside]
        rmse = _rms(a - b)
        fitted = _fitted(a, b)
        plain = _spread(b) < _PLAIN
        if plain:
            correlation = None
        else:
            spread = _spread(a) * _spread(b)
            correlation = float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 0 else 0.0
        measured = {
            "size": maps.size,
            "rmse": "root of the mean squared difference, 0..255",
            "si_rmse": "the same after the scale (not below 0) and shift that fit best, 0..255",
            "correlation": "not taken: the wanted map is a plane" if plain else "Pearson's, -1..1",
        }
        values = {"rmse": rmse, "si_rmse": _rms(fitted - b), "correlation": correlation}
        adherence = max(0.0, 1 - rmse / 255) if correlation is None else max(0.0, correlation)
        return Score(self.kind, values, measured, "rmse" if plain else self.main, adherence)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """1 where the fitted depth is right, 0 where it is 32 levels off, -1 from 64."""
        maps = pair(found, wanted, inside)
        a, b = _grey(maps)
        if maps.empty:
            return np.zeros(maps.inside.shape, np.float32)
        scale, shift = _best_fit(a[maps.inside], b[maps.inside])
        return _graded(np.abs(scale * a + shift - b) / _FAR_OFF, maps.inside)


@dataclass(frozen=True)
class Normals:
    """The mean angle between the normals that the colours stand for, n = 2 rgb - 1."""

    kind: str = "normals"
    main: str = "mean_angle"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"mean_angle": False, "median_angle": False, "within_30": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`; adherence falls from 1 at 0 degrees to 0 at 90."""
        maps = pair(found, wanted, inside)
        if maps.empty:
            return nothing(self.kind, self.main, self.better, maps.size)
        angles = _angles(maps)[maps.inside]
        values = {
            "mean_angle": float(angles.mean()),
            "median_angle": float(np.median(np.asarray(angles))),
            "within_30": float((angles <= 30).mean()),
        }
        measured = {
            "size": maps.size,
            "mean_angle": "mean angle between normals, degrees",
            "median_angle": "median angle between normals, degrees",
            "within_30": "share of the pixels whose normal is at most 30 degrees off",
        }
        return Score(self.kind, values, measured, self.main, max(0.0, 1 - values["mean_angle"] / 90))

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """1 at an angle of 0, 0 at 45 degrees, -1 from 90."""
        maps = pair(found, wanted, inside)
        return _graded(_angles(maps) / _TURNED, maps.inside)


def _graded(error: Any, inside: Mask) -> Field:
    """Errors in units of that which is neither good nor bad."""
    return np.where(inside, np.clip(1 - error, -1, 1), 0).astype(np.float32)


def _grey(maps: Pair) -> tuple[Any, Any]:
    return maps.found.astype(np.float64).mean(axis=2), maps.wanted.astype(np.float64).mean(axis=2)


def _spread(values: Any) -> float:
    return float(values.std())


def _rms(difference: Any) -> float:
    return float((difference * difference).mean()) ** 0.5


def _best_fit(a: Any, b: Any) -> tuple[float, float]:
    """Scale and shift of `a` that bring it nearest to `b`; a map that is turned over is not brought back."""
    spread = float(a.var())
    scale = max(0.0, float(((a - a.mean()) * (b - b.mean())).mean()) / spread) if spread > 0 else 0.0
    return scale, float(b.mean() - scale * a.mean())


def _fitted(a: Any, b: Any) -> Any:
    scale, shift = _best_fit(a, b)
    return scale * a + shift


def _angles(maps: Pair) -> Any:
    """Degrees between the normals of each pixel, (h, w)."""
    a, b = (_unit(one.astype(np.float64) / 127.5 - 1) for one in (maps.found, maps.wanted))
    # of the chord: acos is blind to angles below a degree
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=2) / 2, 0, 1)))


def _unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-6)
