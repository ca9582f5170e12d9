"""Runs preprocessors: picture -> control map, with the results kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ControlNetError, PreprocessorError, UnitError
from ..core.legacy import PLACEHOLDER_THRESHOLD

Pixels = NDArray[np.uint8]
DEFAULT = -1
FIXED_SIZE = 512
"""What preprocessors without a resolution are told; the infotext shows it as the peers' does."""


class SliderSpec(Protocol):
    """A setting of a preprocessor (see annotator/spec.py)."""

    label: str
    minimum: float
    maximum: float
    default: float


class PreprocessorSpec(Protocol):
    """A preprocessor's data sheet (see annotator/spec.py)."""

    id: str
    label: str
    resolution: SliderSpec | None
    sliders: Sequence[SliderSpec]
    accepts_mask: bool
    requires_mask: bool
    model_free: bool
    soft_weights_in_hires: bool
    cacheable: bool


class Entry(Protocol):
    """A preprocessor that can be loaded."""

    spec: PreprocessorSpec
    load: Callable[[Any], Callable[..., Pixels]]


class Annotators(Protocol):
    """The registry of preprocessors (see annotator/registry.py); it raises KeyError for names it does not know."""

    def get(self, name: str) -> Entry:
        """By id, label or alias."""
        ...

    @property
    def entries(self) -> Iterable[Entry]:
        """All that can run."""
        ...


@dataclass(frozen=True)
class PreprocessResult:
    """map: (h, w, 3) uint8, or (h, w, 4) with a mask in the last channel. The settings are those really used."""

    map: Pixels
    spec: PreprocessorSpec
    resolution: int
    params: tuple[float, ...]


class PreprocessRunner:
    """Preprocessors behind one door: validated settings, one detector each, results cached up to `limit` bytes."""

    def __init__(self, annotators: Annotators, runtime: Callable[[], Any], limit: int = 256 << 20) -> None:
        self.annotators = annotators
        self._runtime = runtime
        self._limit = limit
        self._detectors: dict[str, Callable[..., Pixels]] = {}
        self._results: OrderedDict[bytes, Pixels] = OrderedDict()
        self._lock = threading.RLock()

    def entry(self, name: str) -> Entry:
        """The preprocessor of a name. Raises PreprocessorError."""
        try:
            return self.annotators.get(name)
        except KeyError as error:
            raise _said(error) from error

    def run(
        self,
        name: str,
        image: Pixels,
        mask: Pixels | None = None,
        *,
        resolution: int = DEFAULT,
        threshold_a: float = DEFAULT,
        threshold_b: float = DEFAULT,
        seed: int = 0,
        pixel_perfect: int | None = None,
    ) -> PreprocessResult:
        """The control map of `image` (H, W, 3) uint8 RGB and `mask` (H, W) uint8, 255 where masked.

        -1 asks for a setting's default; a setting the preprocessor does not have is not looked at. `pixel_perfect` is
        a computed resolution, which takes the place of the asked one and knows no range.
        Raises PreprocessorError, or UnitError for a setting out of range.
        """
        entry = self.entry(name)
        spec = entry.spec
        size = _size(spec, resolution, pixel_perfect)
        asked = zip(spec.sliders, (threshold_a, threshold_b), ("threshold_a", "threshold_b"), strict=False)
        params = tuple(_setting(slider, value, field) for slider, value, field in asked)
        if spec.requires_mask and mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
        key = _key(spec.id, image, mask, size, params, seed)
        with self._lock:
            found = self._results.get(key)
            if found is None:
                found = self._detect(entry, image, mask, size, params, seed)
                if spec.cacheable:
                    self._keep(key, found)
            else:
                self._results.move_to_end(key)
        return PreprocessResult(found, spec, size, params)

    def _detect(
        self, entry: Entry, image: Pixels, mask: Pixels | None, size: int, params: tuple[float, ...], seed: int
    ) -> Pixels:
        name = entry.spec.id
        try:
            if name not in self._detectors:
                self._detectors[name] = entry.load(self._runtime())
            found = self._detectors[name](image, resolution=size, params=params, mask=mask, rng_seed=seed)
        except ControlNetError:
            raise
        except Exception as error:
            raise _said(error, f'the preprocessor "{entry.spec.label}" failed') from error
        found.flags.writeable = False  # results are shared by the cache
        return found

    def _keep(self, key: bytes, result: Pixels) -> None:
        self._results[key] = result
        while len(self._results) > 1 and sum(r.nbytes for r in self._results.values()) > self._limit:
            self._results.popitem(last=False)


def _said(error: Exception, problem: str = "") -> PreprocessorError:
    """An annotator's own error (problem, found, remedy) or anybody's, as ours."""
    own = getattr(error, "problem", None)
    if own is None:
        return PreprocessorError(problem or str(error), field="module", found=f"{type(error).__name__}: {error}")
    remedy = getattr(error, "remedy", "") or "choose another preprocessor"
    return PreprocessorError(own, field="module", found=getattr(error, "found", None), remedy=remedy)


def _size(spec: PreprocessorSpec, asked: int, pixel_perfect: int | None) -> int:
    if spec.resolution is None:
        return FIXED_SIZE
    return int(_setting(spec.resolution, asked, "processor_res")) if pixel_perfect is None else pixel_perfect


def _setting(slider: SliderSpec, value: float, field: str) -> float:
    if value == DEFAULT and not slider.minimum <= DEFAULT <= slider.maximum:
        return slider.default
    if value == PLACEHOLDER_THRESHOLD and not slider.minimum <= value <= slider.maximum:
        return slider.default
    if not slider.minimum <= value <= slider.maximum:
        raise UnitError(
            f'"{slider.label}" is out of range',
            field=field,
            found=value,
            remedy=f"give {slider.minimum:g} to {slider.maximum:g}, or -1 for the default {slider.default:g}",
        )
    return value


def _key(name: str, image: Pixels, mask: Pixels | None, size: int, params: tuple[float, ...], seed: int) -> bytes:
    digest = hashlib.blake2b(repr((name, image.shape, size, params, seed, mask is None)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    if mask is not None:
        digest.update(np.ascontiguousarray(mask).data)
    return digest.digest()
