"""What a comparison of two maps says, and what all comparisons have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ControlNetError, UnitError
from ..core.images import Pixels
from ..core.preprocessors import Detection

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
"""(h, w), -1 (not followed) to 1 (followed), 0 where nothing was asked or the unit has no say."""
MapLike = "Pixels | Detection"


@dataclass(frozen=True)
class Score:
    """How well a map found in a picture agrees with the map that was wanted.

    values: each metric under the field's name; None where it cannot be taken, and `measured` says why. measured: for
    each value in words how it was taken, and `size` as "512x512"; who runs a preprocessor adds `detector`. main: the
    name of the value that `adherence` rests on. adherence: 0..1, 1 is perfect; None where nothing could be compared.
    beside: the names of other values that are told with it in short.
    """

    kind: str
    values: Mapping[str, float | None]
    measured: Mapping[str, str]
    main: str
    adherence: float | None
    beside: tuple[str, ...] = ()

    def words(self) -> str:
        """In short, as in "f1_tolerant 0.912"."""
        value = self.values[self.main]
        also = [f"{name} {self.values[name]:.3f}" for name in self.beside]
        return f"{self.main} nothing scored" if value is None else " ".join([f"{self.main} {value:.3f}", *also])

    def rounded(self, digits: int = 4) -> dict[str, float | None]:
        """The values as they are told."""
        return {name: None if value is None else round(value, digits) for name, value in self.values.items()}


class Metric(Protocol):
    """Compares maps of one kind."""

    @property
    def kind(self) -> str: ...

    @property
    def main(self) -> str:
        """The name of the value that the adherence rests on."""
        ...

    @property
    def better(self) -> Mapping[str, bool]:
        """The names of its values, and whether more of each is better."""
        ...

    def compare(self, found: Any, wanted: Any, inside: Mask | None = None) -> Score:
        """`found`, seen in a picture, against `wanted`: both maps (h, w, 3 or 4) uint8, or what a preprocessor found.

        inside: (h, w), what is scored; all where None. Raises ControlNetError for maps of different sizes.
        """
        ...

    def followed(self, found: Any, wanted: Any, inside: Mask | None = None) -> Field | None:
        """Where `wanted` is followed; None for what has no place in a picture."""
        ...


@dataclass(frozen=True)
class Evidence:
    """What a preprocessor found, for those who have not its own answer; see `core.preprocessors.Detection`."""

    map: Pixels | None = None
    pose: Mapping[str, Any] | None = None
    tensors: Mapping[str, Any] | None = None
    shown: Pixels | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """Two maps of one size, (h, w, 3) uint8, and what of them is scored."""

    found: Pixels
    wanted: Pixels
    inside: Mask
    whole: bool = field(default=True)
    """Everything is inside."""

    @property
    def size(self) -> str:
        return f"{self.wanted.shape[1]}x{self.wanted.shape[0]}"

    @property
    def empty(self) -> bool:
        """There is nothing to score."""
        return not self.inside.any()


def evidence(given: Pixels | Detection) -> Detection:
    """`given` as what a preprocessor found."""
    return Evidence(given) if isinstance(given, np.ndarray) else given


def pair(found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None) -> Pair:
    """Both as maps that can be compared; where `wanted` says what is to be painted anew, that is not scored.

    Raises ControlNetError where there is no map or their sizes differ.
    """
    maps = [_rgb(evidence(one).map) for one in (found, wanted)]
    size = maps[1].shape[:2]
    if maps[0].shape[:2] != size or (inside is not None and inside.shape != size):
        shapes = [f"{one.shape[1]}x{one.shape[0]}" for one in (*maps, *(() if inside is None else (inside,)))]
        raise UnitError(
            "maps are compared pixel by pixel, and these have not one size", found=", ".join(shapes),
            remedy="bring them to the size of the wanted map",
        )  # fmt: skip
    scored = np.ones(size, bool) if inside is None else inside.astype(bool)
    alpha = evidence(wanted).map
    if alpha is not None and alpha.ndim == 3 and alpha.shape[2] == 4:
        scored = scored & (alpha[:, :, 3] < 128)
    return Pair(maps[0], maps[1], scored, bool(scored.all()))


def nothing(kind: str, main: str, names: Mapping[str, bool], size: str) -> Score:
    """The score where nothing of the picture is the unit's."""
    why = "not taken: nothing of the picture is scored"
    return Score(kind, dict.fromkeys(names), {**dict.fromkeys(names, why), "size": size}, main, None)


def _rgb(map_: Pixels | None) -> Pixels:
    if map_ is None:
        raise ControlNetError("there is no map to compare", remedy="take a preprocessor that gives one")
    if map_.dtype != np.uint8 or map_.ndim not in (2, 3) or (map_.ndim == 3 and map_.shape[2] not in (1, 3, 4)):
        raise UnitError("a map is a picture of 8 bits", found=f"shape {map_.shape}, type {map_.dtype}")
    if map_.ndim == 2 or map_.shape[2] == 1:
        return np.repeat(map_.reshape(*map_.shape[:2], 1), 3, axis=2)
    return map_[:, :, :3]
