"""What the widgets of a unit do to each other.

User actions only (`input`, `click`): a paste sets widgets too, and must not be overwritten by what it sets off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS, as_mapping
from ..core.control_types import NO_MODEL, NO_PREPROCESSOR, default_model, default_preprocessor, models_of
from ..core.errors import ControlNetError, UnitError
from ..core.hints import inpaint_display
from ..core.images import read_picture
from ..core.inputs import preprocessor_input
from ..core.resize import pixel_perfect_resolution
from ..core.units import parse_unit
from ..engine.services import Services
from .gradio_compat import find_component
from .sliders import slider_updates
from .unit_panel import UnitWidgets, preprocessor_labels

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
"""Events that only rearrange the page."""


def connect(services: Services, tab: str, is_img2img: bool, index: int, unit: UnitWidgets) -> None:
    """Connects the events of one unit."""
    values = unit.values
    sliders = [values[name] for name in ("resolution", "threshold_a", "threshold_b")]
    settings = [*sliders, values["control_mode"], values["model"]]
    unit.control_type.input(
        shown_errors(lambda kind, perfect: choose_type(services, kind, perfect)),
        [unit.control_type, values["pixel_perfect"]],
        [values["preprocessor"], *settings],
        **QUICK,
    )
    values["preprocessor"].input(
        shown_errors(lambda name, perfect: choose_preprocessor(services, name, perfect)),
        [values["preprocessor"], values["pixel_perfect"]],
        settings,
        **QUICK,
    )
    values["pixel_perfect"].input(
        shown_errors(lambda name, perfect: gr.update(visible=_has_resolution(services, name) and not perfect)),
        [values["preprocessor"], values["pixel_perfect"]],
        [values["resolution"]],
        **QUICK,
    )
    unit.refresh.click(
        shown_errors(lambda kind, chosen: refresh_models(services, kind, chosen)),
        [unit.control_type, values["model"]],
        [values["model"]],
        **QUICK,
    )
    _connect_upload(values, is_img2img)
    unit.show_preview.input(lambda shown: gr.update(visible=shown), [unit.show_preview], [unit.preview], **QUICK)
    _connect_preview(services, tab, index, unit)


def _connect_upload(values: dict[str, Any], is_img2img: bool) -> None:
    """A picture that is uploaded is meant to be used: without this img2img would pass over it."""
    values["image"].upload(lambda: True, None, [values["enabled"]], **QUICK)
    if not is_img2img:
        return
    own, resize = values["own_image"], values["resize_mode"]
    for picture in (values["image"], values["mask"]):
        picture.upload(lambda: (True, gr.update(visible=True)), None, [own, resize], **QUICK)
    own.input(lambda chosen: gr.update(visible=chosen), [own], [resize], **QUICK)


def _connect_preview(services: Services, tab: str, index: int, unit: UnitWidgets) -> None:
    size = [find_component(f"{tab}_{name}") for name in ("width", "height")]
    known = [component for component in size if component is not None]
    has_size = len(known) == 2

    def run(*arguments: Any) -> tuple[Any, bool]:
        fields = dict(zip(FIELDS, arguments, strict=False))
        target = arguments[len(FIELDS) :] if has_size else (512, 512)
        return gr.update(value=preview(services, fields, index, target), visible=True), True

    inputs = [*unit.arguments(), *(known if has_size else [])]
    unit.run.click(shown_errors(run, index), inputs, [unit.preview, unit.show_preview])
    if has_size:
        unit.send_size.click(shown_errors(picture_size, index), [unit.values["image"]], known, **QUICK)


def choose_type(services: Services, control_type: str, pixel_perfect: bool) -> list[Any]:
    """Control type -> its preprocessors and models, its defaults, and the default preprocessor's settings."""
    specs: list[Any] = [entry.spec for entry in services.annotators.entries]
    spec = default_preprocessor(control_type, specs)
    label = spec.label if spec is not None else NO_PREPROCESSOR
    names = services.library.names()
    *settings, _model = choose_preprocessor(services, label, pixel_perfect)
    free = spec is not None and spec.model_free
    model = gr.update(
        choices=models_of(control_type, names),
        value=NO_MODEL if free else default_model(control_type, names),
        visible=not free,
    )
    return [gr.update(choices=preprocessor_labels(services, control_type), value=label), *settings, model]


def choose_preprocessor(services: Services, name: str, pixel_perfect: bool) -> list[Any]:
    """Preprocessor -> updates of resolution, threshold A, threshold B, control mode, model."""
    spec: Any = services.preprocess.entry(name).spec
    model = gr.update(visible=False, value=NO_MODEL) if spec.model_free else gr.update(visible=True)
    hides_mode = bool(getattr(spec, "hides_control_mode", False))
    return [*slider_updates(spec, pixel_perfect), gr.update(visible=not hides_mode), model]


def refresh_models(services: Services, control_type: str, chosen: str) -> Any:
    """Reads the model folders again; a choice that is gone becomes "None"."""
    services.library.refresh()
    choices = models_of(control_type, services.library.names())
    return gr.update(choices=choices, value=chosen if chosen in choices else NO_MODEL)


def preview(services: Services, fields: dict[str, Any], index: int, target: tuple[int, int]) -> Any:
    """The map that a generation of `target` (width, height) would use, before its fitting: (h, w, 3) uint8."""
    fields = {**fields, "own_image": True}
    unit = parse_unit({**as_mapping([fields[name] for name in FIELDS]), "enabled": True}, index)
    if unit.image is None:
        raise UnitError("there is no picture to preprocess", field="image", remedy="upload one in the Image tab")
    spec = services.preprocess.entry(unit.preprocessor).spec
    ignore = bool(services.setting("controlnet_ignore_noninpaint_mask", False))
    image, mask = preprocessor_input(unit.image, unit.mask, accepts_mask=spec.accepts_mask, ignore_mask=ignore)
    fitting = pixel_perfect_resolution(image, int(target[1]), int(target[0]), unit.resize_mode)
    result = services.preprocess.run(
        unit.preprocessor,
        image,
        mask,
        resolution=unit.resolution,
        pixel_perfect=fitting if unit.pixel_perfect else None,
        threshold_a=unit.threshold_a,
        threshold_b=unit.threshold_b,
    )
    return result.map if result.map.shape[2] == 3 else inpaint_display(result.map)


def picture_size(image: Any) -> tuple[int, int]:
    """Width and height of the picture, to the nearest multiple of 8; halves go down, as in the peers."""
    picture = read_picture(image)
    if picture is None:
        raise UnitError("there is no picture to take the size of", field="image", remedy="upload one in the Image tab")
    height, width = picture.pixels.shape[:2]
    return (width + 3) // 8 * 8, (height + 3) // 8 * 8


def shown_errors(handler: Callable[..., Any], index: int | None = None) -> Callable[..., Any]:
    """The handler, with our errors shown on the page."""

    def call(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except ControlNetError as error:
            raise gr.Error(str(error if index is None else error.for_unit(index))) from error

    return call


def _has_resolution(services: Services, name: str) -> bool:
    return services.preprocess.entry(name).spec.resolution is not None
