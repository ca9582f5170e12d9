"""What a preprocessor sees of a unit's picture, and running it: the same for jobs, previews, routes and folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..core.embeddings import words
from ..core.errors import PreprocessorError
from ..core.inputs import preprocessor_input, says_where
from ..core.modes import ResizeMode
from ..core.preprocessors import PreprocessorSpec
from ..core.resize import fit_map, pixel_perfect_resolution
from ..core.units import ControlNetUnit
from .generation import Picture
from .preprocess import PreprocessResult, PreprocessRunner
from .services import Services


@dataclass(frozen=True)
class Target:
    """What a map is made for, as far as it depends on that.

    size: (width, height) of the base pass. final_size: of the finished picture. None where there is no job that has
    them: "Pixel Perfect" and the border of "Resize and Fill" are left out then. seed: the job's. paints_mask: the host
    itself paints within a mask.
    """

    size: tuple[int, int] | None = None
    final_size: tuple[int, int] | None = None
    seed: int = 0
    paints_mask: bool = False


NO_JOB = Target()
"""Of a map that is made for itself."""


def chosen(services: Services, unit: ControlNetUnit, target: Target) -> ControlNetUnit:
    """The unit with the preprocessor that is run for it: none where it brings embeddings. Raises PreprocessorError."""
    if unit.embeddings:
        return unit
    spec = services.preprocess.entry(unit.preprocessor).spec
    if spec.by_model:
        return replace(unit, preprocessor=reading(services, unit))
    if not (target.paints_mask and spec.within_host_mask):
        return unit
    return replace(unit, preprocessor=spec.within_host_mask)


def sheet(services: Services, unit: ControlNetUnit) -> PreprocessorSpec:
    """The data sheet of the unit's preprocessor; one that cannot run here is not needed for embeddings that were made
    elsewhere. Raises PreprocessorError."""
    try:
        return services.preprocess.entry(unit.preprocessor).spec
    except PreprocessorError:
        name = unit.preprocessor.strip().lower()
        known = [one.spec for one in services.annotators.disabled.values() if one.spec and name in one.spec.names]
        if not (unit.embeddings and known):
            raise
        return known[0]


def reading(services: Services, unit: ControlNetUnit) -> str:
    """The id of the preprocessor that gives the embeddings which the unit's model reads.

    Raises PreprocessorError where the model reads none, or none that gives them can run; ModelFileError.
    """
    path = services.library.find(unit.model).path
    kinds = services.models.embeddings(path)
    able = [entry.spec for entry in services.annotators.entries if not entry.spec.model_free]
    found = next((spec.id for kind in kinds for spec in able if spec.embedding == kind), None)
    if found is not None:
        return found
    known = [one for one in services.annotators.disabled.values() if one.spec and one.spec.embedding in kinds]
    raise PreprocessorError(
        f'"{unit.preprocessor}" finds no preprocessor for "{path.name}"',
        unit=unit.index,
        field="module",
        found=f"it reads {' or '.join(words(kind) for kind in kinds)}" if kinds else "it reads maps, not embeddings",
        remedy="; ".join(f"{one.id} is not available: {one.reason}" for one in known)
        or "choose the preprocessor for this model",
    )


def look(
    services: Services,
    unit: ControlNetUnit,
    picture: Picture,
    target: Target,
    progress: Callable[[float], None] | None = None,
) -> PreprocessResult:
    """The map, pose or embedding of a unit's picture, before it is fitted to a pass.

    `progress` is told the part done, 0..1. Raises PreprocessorError, and UnitError for a picture that cannot be fitted.
    """
    ignore = bool(services.setting("controlnet_ignore_noninpaint_mask", False))
    unit = chosen(services, unit, target)
    spec = services.preprocess.entry(unit.preprocessor).spec
    regional = services.masks_are_regions and unit.region_mask is None
    if regional and says_where(picture.image, requires_mask=spec.requires_mask):
        picture = replace(picture, mask=None)
    return see(services.preprocess, unit, picture, target, ignore, progress)


def see(
    preprocess: PreprocessRunner,
    unit: ControlNetUnit,
    picture: Picture,
    target: Target = NO_JOB,
    ignore_mask: bool = True,
    progress: Callable[[float], None] | None = None,
) -> PreprocessResult:
    """`look` for a preprocessor that was named, with no model to go by: routes, folders of pictures, comparisons.

    `ignore_mask`: a mask is no picture of its own for a preprocessor that takes none (see `core/inputs.py`).
    """
    spec = preprocess.entry(unit.preprocessor).spec
    if spec.fills_border and target.final_size is not None and picture.resize_mode is ResizeMode.resize_and_fill:
        picture = _with_border(picture, target.final_size)
    image, mask = preprocessor_input(
        picture.image, picture.mask, accepts_mask=spec.accepts_mask, ignore_mask=ignore_mask
    )
    return preprocess.run(
        unit.preprocessor,
        image,
        mask,
        resolution=unit.resolution,
        pixel_perfect=_pixel_perfect(unit, picture, target),
        threshold_a=unit.threshold_a,
        threshold_b=unit.threshold_b,
        seed=target.seed,
        progress=progress,
    )


def _with_border(picture: Picture, size: tuple[int, int]) -> Picture:
    """Brought to `size` beforehand, the border of its own to be painted too."""
    mask = np.zeros(picture.image.shape[:2], np.uint8) if picture.mask is None else picture.mask
    fitted = fit_map(np.dstack([picture.image, mask]), *size, picture.resize_mode)
    fitted = np.rint(fitted.clip(0, 255)).astype(np.uint8)
    return replace(picture, image=np.ascontiguousarray(fitted[:, :, :3]), mask=fitted[:, :, 3].copy())


def _pixel_perfect(unit: ControlNetUnit, picture: Picture, target: Target) -> int | None:
    if not unit.pixel_perfect or target.size is None:
        return None
    width, height = target.size
    return pixel_perfect_resolution(picture.image, height, width, picture.resize_mode)
