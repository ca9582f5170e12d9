"""Poses: key points against key points, people matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.images import Pixels
from ..core.preprocessors import Detection
from .lines import Lines
from .people import Person, matched, met, oks, people_of
from .score import Field, Mask, Score, evidence, nothing

_DRAWN = Lines(kind="poses")


@dataclass(frozen=True)
class Poses:
    """OKS and PCK; where one of the two is a drawing without key points, the drawings are compared as lines."""

    kind: str = "poses"
    main: str = "oks"
    share: float = 0.2

    @property
    def better(self) -> Mapping[str, bool]:
        return {"oks": True, "pck": True, "people": True, "people_wanted": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`. Who was not found counts 0; who was not asked for is in `people` alone."""
        poses = evidence(found).pose, evidence(wanted).pose
        if poses[0] is None or poses[1] is None:
            drawn = _DRAWN.compare(found, wanted, inside)
            text = "drawings compared as lines, for want of key points: "
            measured = {name: value if name == "size" else text + value for name, value in drawn.measured.items()}
            return replace(drawn, measured=measured)
        width, height = _size(poses[1])
        mine, theirs = (
            _inside(people_of(pose, (width, height)), inside, width, height) for pose in (poses[0], poses[1])
        )
        if inside is not None and not inside.any():
            return nothing(self.kind, self.main, self.better, f"{width}x{height}")
        return self._score(mine, theirs, f"{width}x{height}")

    def _score(self, mine: list[Person], theirs: list[Person], size: str) -> Score:
        pairs = list(zip(matched(mine, theirs, self.share), theirs, strict=True))
        near = [0.0 if one is None else oks(one, other) for one, other in pairs if _jointed(other)]
        rated = [value for value in near if value is not None]
        asked = sum(int(other.seen.sum()) for _, other in pairs)
        right = sum(int(met(one, other, self.share).sum()) for one, other in pairs)
        both_empty = float(not mine and not theirs)
        mean_oks = float(np.mean(rated)) if rated else (None if theirs else both_empty)
        pck = right / asked if asked else both_empty
        measured = {
            "size": size,
            "oks": "mean OKS over the people wanted (COCO's sigmas without the neck, area of the wanted box), "
            "people matched"
            if mean_oks is not None
            else "not taken: nobody wanted shows a joint of the body",
            "pck": f"PCK@{self.share:g}: share of the key points within {self.share:g} of the longer side of the "
            "person's box, hands and face counted",
            "people": "how many people (and animals) were found",
            "people_wanted": "how many were wanted",
        }
        values = {"oks": mean_oks, "pck": pck, "people": float(len(mine)), "people_wanted": float(len(theirs))}
        main = "pck" if mean_oks is None else self.main
        return Score(self.kind, values, measured, main, pck if mean_oks is None else mean_oks)

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Field:
        """Around each key point wanted 1 where it was met, else -1."""
        poses = evidence(found).pose, evidence(wanted).pose
        if poses[0] is None or poses[1] is None:
            return _DRAWN.followed(found, wanted, inside)
        width, height = _size(poses[1])
        mine, theirs = (
            _inside(people_of(pose, (width, height)), inside, width, height) for pose in (poses[0], poses[1])
        )
        field = np.zeros((height, width), np.float32)
        radius = max(2, min(width, height) // 64)
        for one, other in zip(matched(mine, theirs, self.share), theirs, strict=True):
            right = met(one, other, self.share)
            for index in np.flatnonzero(other.seen):
                _dot(field, other.points[index], radius, 1.0 if right[index] else -1.0)
        return field


def _jointed(person: Person) -> bool:
    return bool((person.seen[: len(person.sigmas)] & (person.sigmas > 0)).any())


def _size(pose: Mapping[str, Any]) -> tuple[int, int]:
    return max(1, int(pose.get("canvas_width") or 1)), max(1, int(pose.get("canvas_height") or 1))


def _inside(people: list[Person], inside: Mask | None, width: int, height: int) -> list[Person]:
    """The people with the points that are scored; a mask of another size than the canvas is stretched over it."""
    if inside is None:
        return people
    scale = np.array([inside.shape[1] / width, inside.shape[0] / height])
    kept: list[Person] = []
    for person in people:
        places = np.floor(person.points * scale).astype(int)
        within = (places >= 0).all(1) & (places < np.array(inside.shape[::-1])).all(1)
        places = np.where(within[:, None], places, 0)
        kept.append(person.limited(within & inside[places[:, 1], places[:, 0]]))
    return [person for person in kept if person.seen.any()]


def _dot(field: Field, point: Any, radius: int, value: float) -> None:
    x, y = (round(float(part)) for part in point)
    field[max(0, y - radius) : max(0, y + radius + 1), max(0, x - radius) : max(0, x + radius + 1)] = value
