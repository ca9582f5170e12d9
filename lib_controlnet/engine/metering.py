"""Runs a unit's own preprocessor on a picture, and compares what it finds with the map that was wanted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.control_types import MAP_KINDS, MODEL_WORDS, preprocessors_of
from ..core.errors import PreprocessorError
from ..core.images import Pixels
from ..core.modes import ResizeMode
from ..core.preprocessors import Detection, PreprocessorSpec
from ..core.resize import fit_map
from ..measure.metrics import kind_of, metric_of
from ..measure.pictures import Pictures
from ..measure.score import Evidence, Field, Mask, Score, evidence
from .perceptual import perceptual
from .preprocess import DEFAULT, PreprocessResult, PreprocessRunner

DECIMALS = 4


@dataclass(frozen=True, eq=False)
class Metered:
    """A picture's score, and what found the map that it rests on. field: see `Metric.followed`."""

    score: Score
    detector: str
    found: Detection
    field: Field | None
    seconds: float
    notes: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """As JSON: each metric under the field's name, then how it was taken."""
        adherence = self.score.adherence
        return {
            **self.score.rounded(DECIMALS),
            "adherence": rounded(adherence),
            "main": self.score.main,
            "kind": self.score.kind,
            "measured": {**self.score.measured, "detector": self.detector},
            **({"notes": list(self.notes)} if self.notes else {}),
        }


@dataclass(frozen=True)
class Detector:
    """A preprocessor with its settings. resolution: None for that of the wanted map."""

    spec: PreprocessorSpec
    resolution: int | None = None
    threshold_a: float = DEFAULT
    threshold_b: float = DEFAULT
    notes: tuple[str, ...] = ()


def measuring(specs: Iterable[PreprocessorSpec], spec: PreprocessorSpec, model: str = "") -> PreprocessorSpec:
    """The preprocessor that is run on a result of a unit that has `spec`: itself, unless it reads maps.

    Then the first of the control type for which the model's name has a word, of those which `spec` names; a choice of
    what to measure with, which the result says. Raises PreprocessorError where there is none.
    """
    if not spec.reads_map:
        return spec
    known = [one for one in spec.control_types if one in MAP_KINDS]
    named = [name for name, rule in MODEL_WORDS.items() if any(word in model.lower() for word in rule.words)]
    types = [name for name in named if name in (known or MAP_KINDS)] or known
    able = [one for one in specs if not one.reads_map and one.returns_image]
    for name in types:
        chosen = [one for one in preprocessors_of(name, able) if name in one.control_types]
        if chosen:
            return min(chosen, key=lambda one: bool(one.weights))  # the first without a network, if there is one
    raise PreprocessorError(
        f'what the map shows is not known: "{spec.label}" takes any',
        field="module",
        remedy="name a preprocessor to measure with",
    )


def measure_picture(
    runner: PreprocessRunner,
    picture: Pixels,
    wanted: Pixels | Detection,
    detector: Detector,
    inside: Mask | None = None,
) -> Metered:
    """How well `picture` (H, W, 3) follows `wanted`, whose map may have another size: what is found is brought to it.

    inside: (h, w) of the wanted map, what is scored. Raises ControlNetError.
    """
    began = time.perf_counter()
    kind = kind_of(detector.spec)
    target = evidence(wanted)
    side = detector.resolution
    if side is None and target.map is not None:
        side = min(target.map.shape[:2])
    result = runner.run(
        detector.spec.id,
        picture,
        pixel_perfect=side,
        threshold_a=detector.threshold_a,
        threshold_b=detector.threshold_b,
    )
    found = fitted(evidence(result.found), target)
    metric = metric_of(kind)
    if isinstance(metric, Pictures):
        metric = replace(metric, perceptual=perceptual(runner))
    score = metric.compare(found, target, inside)
    field = metric.followed(found, target, inside)
    return Metered(
        score, described(result), found, field, time.perf_counter() - began, (*detector.notes, *result.notes)
    )


def fitted(found: Detection, wanted: Detection) -> Detection:
    """`found` with its map at the size of the wanted one."""
    if found.map is None or wanted.map is None or found.map.shape[:2] == wanted.map.shape[:2]:
        return found
    height, width = wanted.map.shape[:2]
    map_ = np.rint(fit_map(found.map, width, height, ResizeMode.just_resize).clip(0, 255)).astype(np.uint8)
    return Evidence(map_, found.pose, found.tensors, found.shown)


def described(result: PreprocessResult) -> str:
    """The preprocessor with the settings that it was run with."""
    sliders = [f"{slider.label} {value:g}" for slider, value in zip(result.spec.sliders, result.params, strict=False)]
    size = [f"resolution {result.resolution}"] if result.spec.resolution is not None else []
    return ", ".join([result.spec.id, *size, *sliders])


def mean_of(reports: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean adherence of several reports; None without any that has one."""
    values = [report["adherence"] for report in reports if report.get("adherence") is not None]
    return round(float(np.mean(values)), DECIMALS) if values else None


def share_followed(own: float | None, floor: float | None, ceiling: float | None) -> float | None:
    """How much of what lies between floor and ceiling a picture has, 0..1; None where one of them is not known."""
    if own is None or floor is None or ceiling is None or ceiling <= floor:
        return None
    return min(max((own - floor) / (ceiling - floor), 0.0), 1.0)


def rounded(value: float | None) -> float | None:
    """As numbers are told."""
    return None if value is None else round(value, DECIMALS)


def with_note(detector: Detector, chosen: PreprocessorSpec) -> Detector:
    """`detector` with `chosen` in its place, which is said."""
    if chosen is detector.spec:
        return detector
    note = f'measured with {chosen.id}, since "{detector.spec.label}" takes maps and not pictures'
    return replace(detector, spec=chosen, threshold_a=DEFAULT, threshold_b=DEFAULT, notes=(*detector.notes, note))
