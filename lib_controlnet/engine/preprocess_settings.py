"""The numbers a preprocessor runs with: those asked for where it takes them, else its defaults, which is said."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.legacy import PLACEHOLDER_THRESHOLD
from ..core.preprocessors import PreprocessorSpec, Slider

DEFAULT = -1
FIXED_SIZE = 512
"""What preprocessors without a resolution are told; the infotext shows it as the peers' does."""

PLACEHOLDER = {"processor_res": FIXED_SIZE, "threshold_a": PLACEHOLDER_THRESHOLD, "threshold_b": PLACEHOLDER_THRESHOLD}
"""What clients send for a setting that they do not know of; where it cannot be meant, there is nothing to be said."""


@dataclass(frozen=True)
class Asked:
    """The settings as a caller gives them; -1 asks for the default."""

    processor_res: float = DEFAULT
    threshold_a: float = DEFAULT
    threshold_b: float = DEFAULT


def used_settings(spec: PreprocessorSpec, asked: Asked) -> tuple[int, tuple[float, ...], tuple[str, ...]]:
    """(resolution, one number for each slider, what to tell the user), as sd-webui-controlnet replaces numbers."""
    notes: list[str] = []
    resolution = _used(spec, "processor_res", spec.resolution, asked.processor_res, notes)
    thresholds = (("threshold_a", asked.threshold_a), ("threshold_b", asked.threshold_b))
    sliders = (*spec.sliders[:2], None, None)
    used = [
        _used(spec, field, slider, value, notes) for slider, (field, value) in zip(sliders, thresholds, strict=False)
    ]
    size = FIXED_SIZE if spec.resolution is None else int(resolution)
    return size, tuple(used[: len(spec.sliders)]), tuple(notes)


def _used(spec: PreprocessorSpec, field: str, slider: Slider | None, value: float, notes: list[str]) -> float:
    if slider is None:
        if value not in (DEFAULT, PLACEHOLDER[field]):
            notes.append(f'the preprocessor "{spec.id}" has no {field}; {value:g} was not used')
        return DEFAULT
    if slider.minimum <= value <= slider.maximum:
        return value
    if value not in (DEFAULT, PLACEHOLDER[field]):
        limits = f"{slider.minimum:g} to {slider.maximum:g}"
        notes.append(
            f'{field} {value:g} is outside "{slider.label}" of the preprocessor "{spec.id}" ({limits}); '
            f"its default {slider.default:g} was used"
        )
    return slider.default
