"""`POST /controlnet/measure`: how well any picture follows any map."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from fastapi import HTTPException, Response
from PIL import Image

from ..core.errors import ControlNetError
from ..core.images import Pixels, read_rgb
from ..core.unknown import unknown_key
from ..core.values import read_parameter, read_resolution
from ..engine.metering import Detector, Metered, mean_of, measure_picture, measuring, with_note
from ..engine.preprocess import DEFAULT
from ..engine.services import PageServices
from ..measure.metrics import EMBEDDING, kind_of
from ..measure.score import Evidence
from ..measure.shown import error_map, overlay
from . import bounds, models
from .router import UNPROCESSABLE

_NOT_FOUND = 404
_KEYS = tuple(models.ControlNetMeasure.__annotations__)


def measure_route(services: PageServices, lock: AbstractContextManager[Any]) -> Callable[..., Any]:
    """The route's handler."""

    def measure(body: models.ControlNetMeasure) -> Any:
        """Runs the preprocessor on each picture and compares what it finds with the picture's map."""
        pictures = body.controlnet_input_images or body.controlnet_images
        maps: list[Any] = list(body.controlnet_poses or body.controlnet_maps)
        _check(pictures, maps, body.controlnet_masks)
        notes = [unknown_key(key, _KEYS) for key in body.unknown()]
        left = bounds.PixelBudget()
        try:
            detector = _detector(services, body)
            with services.preprocess.held():
                seen = [_Seen(services, detector, left, lock, given) for given in _rows(pictures, maps, body)]
        except ControlNetError as error:
            raise error.without_unit() from error
        reports = [one.measured.report() for one in seen]
        return {
            "measures": reports,
            "adherence": mean_of(reports),
            "images": [_text(image) for one in seen if (image := one.shown()) is not None] if body.error_maps else [],
            "info": ". ".join(["Success", *dict.fromkeys(notes)]),
        }

    return measure


def error_map_route(services: PageServices) -> Callable[..., Any]:
    """The handler of `GET /controlnet/error_map/{number}`, from which the page has what its bars stand for."""

    def error_map_of(number: int, shown: int = 0, part: str = "map") -> Response:
        """A picture that was measured (`part=picture`), or where it follows its map, green and red on clear, as PNG.

        number: as said with the bar. shown: its place in the gallery.
        """
        found = services.measured.find(number, shown)
        if found is None:
            raise HTTPException(_NOT_FOUND, "this error map is not kept any more; make the picture again")
        picture, field = found
        pixels = picture if part == "picture" else overlay(field)
        return Response(_png(pixels), media_type="image/png")

    return error_map_of


class _Seen:
    """One picture of a request, measured."""

    def __init__(
        self, services: PageServices, detector: Detector, left: bounds.PixelBudget, lock: Any, given: tuple[Any, ...]
    ) -> None:
        picture, wanted, mask = given
        self._picture = _read(picture, left)
        inside = None if mask is None else _read(mask, left).max(axis=2) > 127
        with lock:
            if isinstance(wanted, dict):
                target: Any = Evidence(pose=wanted)
            elif kind_of(detector.spec) == EMBEDDING:
                target = services.preprocess.run(detector.spec.id, _read(wanted, left)).found
            else:
                target = _read(wanted, left)
            self.measured: Metered = measure_picture(services.preprocess, self._picture, target, detector, inside)

    def shown(self) -> Pixels | None:
        """Where it follows the map."""
        field = self.measured.field
        return None if field is None else error_map(self._picture, field)


def _rows(pictures: list[str], maps: list[Any], body: models.ControlNetMeasure) -> list[tuple[Any, Any, Any]]:
    wanted = maps * len(pictures) if len(maps) == 1 else maps
    return list(zip(pictures, wanted, body.controlnet_masks or [None] * len(pictures), strict=True))


def _detector(services: PageServices, body: models.ControlNetMeasure) -> Detector:
    asked = services.preprocess.entry(body.controlnet_module).spec
    specs = [entry.spec for entry in services.annotators.entries]
    chosen = with_note(Detector(asked), measuring(specs, asked, body.controlnet_model))
    size = read_resolution(body.controlnet_processor_res)
    bound, notes = chosen.spec.resolution, chosen.notes
    if size != DEFAULT and bound is not None and not bound.minimum <= size <= bound.maximum:
        notes = (*notes, f"the resolution {size} is out of range ({bound.minimum:g} to {bound.maximum:g})")
        size = DEFAULT
    thresholds = read_parameter(body.controlnet_threshold_a), read_parameter(body.controlnet_threshold_b)
    return Detector(chosen.spec, None if size == DEFAULT else size, *thresholds, notes)


def _check(pictures: list[str], maps: list[Any], masks: list[Any]) -> None:
    bounds.check_count("images", len(pictures), bounds.IMAGES)
    if not pictures:
        raise HTTPException(UNPROCESSABLE, "No image selected")
    found = f"Found: {len(pictures)} images, {len(maps)} maps and {len(masks)} masks"
    if len(maps) not in (1, len(pictures)) or len(masks) not in (0, len(pictures)):
        raise HTTPException(
            UNPROCESSABLE, f"There must be one map, or one for each image, and no mask or one for each. {found}"
        )


def _read(given: Any, left: bounds.PixelBudget) -> Pixels:
    pixels = read_rgb(given)
    left.spend(*pixels.shape[:2])
    return np.ascontiguousarray(pixels)


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _text(pixels: Pixels) -> str:
    """The PNG as JSON carries it."""
    return base64.b64encode(_png(pixels)).decode()
