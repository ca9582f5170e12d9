"""What the widgets of a unit do to each other.

User actions only (`input`, `click`): a paste sets widgets too, and must not be overwritten by what it sets off. What a
unit says beforehand follows every change, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS
from ..core.control_types import (
    NO_MODEL,
    NO_PREPROCESSOR,
    models_of,
)
from ..core.errors import ControlNetError, UnitError
from ..core.images import read_picture
from ..core.modes import InputMode
from ..core.units import IMAGE_PROMPT
from ..engine import defaults
from ..engine.defaults import model_facts
from ..engine.services import PageServices, Services
from . import model_offer
from .curves import choose_curve, draw_curve
from .drawing import picture_note, reader, reader_when_changed, remembered, remembered_mask
from .gradio_compat import find_component, webcam_toggle
from .image_prompts import draw_weights, shown_options
from .layers import DEFAULT_OUTPUTS, choose_shape, draw
from .notes import absent_preprocessors, run_by, unit_notes
from .sliders import slider_updates
from .unit_panel import UnitWidgets, preprocessor_labels
from .unit_pictures import SINGLE

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
"""Events that only rearrange the page."""


def connect(services: PageServices, tab: str, is_img2img: bool, index: int, unit: UnitWidgets) -> None:
    """Connects the events of one unit."""
    values = unit.values
    sliders = [values[name] for name in ("resolution", "threshold_a", "threshold_b")]
    settings = [*sliders, values["control_mode"], values["model"]]
    on = unit.problem.on
    on(
        unit.control_type.input,
        lambda kind, perfect, look: choose_type(services, kind, perfect, look),
        [unit.control_type, values["pixel_perfect"], unit.drawing.look],
        [values["preprocessor"], *settings, unit.absent],
        **QUICK,
    )
    on(
        values["preprocessor"].input,
        lambda name, perfect: choose_preprocessor(services, name, perfect),
        [values["preprocessor"], values["pixel_perfect"]],
        settings,
        **QUICK,
    )
    on(
        values["pixel_perfect"].input,
        lambda name, perfect: gr.update(visible=_has_resolution(services, name) and not perfect),
        [values["preprocessor"], values["pixel_perfect"]],
        [values["resolution"]],
        **QUICK,
    )
    on(
        unit.refresh.click,
        lambda kind, chosen: refresh_models(services, kind, chosen),
        [unit.control_type, values["model"]],
        [values["model"]],
        **QUICK,
    )
    _connect_pictures(values, is_img2img)
    _connect_buttons(tab, unit)
    _connect_drawing(services, unit)
    _connect_take(services, unit)
    _connect_notes(services, unit)
    _connect_layers(services, unit)
    _connect_schedule(unit)
    _connect_image_prompt(services, unit)
    _connect_hires(unit, is_img2img)


def _connect_pictures(values: dict[str, Any], is_img2img: bool) -> None:
    """A picture that is uploaded is meant to be used: without this img2img would pass over it."""
    for name in ("image", "batch_images", "merge_images"):
        values[name].upload(lambda: True, None, [values["enabled"]], **QUICK)
    values["batch_dir"].input(
        lambda text: True if text.strip() else gr.update(), [values["batch_dir"]], [values["enabled"]], **QUICK
    )
    values["use_region"].change(
        lambda shown: gr.update(visible=shown), [values["use_region"]], [values["region_mask"]], **QUICK
    )
    for name in ("image", "preprocessor", "pixel_perfect", "resolution", "threshold_a", "threshold_b"):
        action = "upload" if name == "image" else "input"
        getattr(values[name], action)(lambda: False, None, [values["use_preview"]], **QUICK)
    if not is_img2img:
        return
    own, resize = values["own_image"], values["resize_mode"]
    for picture in (values["image"], values["mask"]):
        picture.upload(lambda: (True, gr.update(visible=True)), None, [own, resize], **QUICK)
    own.input(lambda chosen: gr.update(visible=chosen), [own], [resize], **QUICK)


def _connect_buttons(tab: str, unit: UnitWidgets) -> None:
    pictures, values = unit.pictures, unit.values
    known = page_size(tab)
    if known:
        unit.problem.on(pictures.buttons["send_size"].click, picture_size, [values["image"]], known, **QUICK)
    if "webcam" in pictures.buttons:
        on = gr.State(False)
        pictures.buttons["webcam"].click(
            lambda was: (not was, webcam_toggle(not was)), [on], [on, values["image"]], **QUICK
        )


def _connect_drawing(services: PageServices, unit: UnitWidgets) -> None:
    """What is drawn on the canvas goes to the model as it is; what the picture looks like is said."""
    values, drawing = unit.values, unit.drawing
    settings = [values[name] for name in ("resolution", "threshold_a", "threshold_b", "control_mode", "model")]
    asked = [values["preprocessor"], unit.control_type]

    def seen(image: Any, drawn: str, before: str, perfect: bool, masked: str, name: str, kind: str) -> list[Any]:
        look = remembered(drawn, image)
        spec = reader_when_changed(services, kind, before, look)
        updates = (
            [gr.update()] * 6 if spec is None else [spec.label, *choose_preprocessor(services, spec.label, perfect)]
        )
        return [look, picture_note(services, look, masked, name if spec is None else spec.label, kind), *updates]

    def mask_seen(mask: Any, look: str, name: str, kind: str) -> tuple[str, str]:
        masked = remembered_mask(mask)
        return masked, picture_note(services, look, masked, name, kind)

    values["image"].change(
        shown_errors(seen),
        [values["image"], drawing.drawn, drawing.look, values["pixel_perfect"], drawing.masked, *asked],
        [drawing.look, drawing.note, values["preprocessor"], *settings],
        **QUICK,
    )
    values["mask"].change(
        shown_errors(mask_seen), [values["mask"], drawing.look, *asked], [drawing.masked, drawing.note], **QUICK
    )
    say = shown_errors(lambda *known: picture_note(services, *known))
    for component in asked:
        component.change(say, [drawing.look, drawing.masked, *asked], [drawing.note], **QUICK)


def _connect_take(services: PageServices, unit: UnitWidgets) -> None:
    """The unit's one picture is a map already: it goes to the model as it is, whatever was chosen for another."""
    values, tabs = unit.values, unit.pictures.tabs
    sliders = [values[name] for name in ("resolution", "threshold_a", "threshold_b")]

    def take(perfect: bool) -> list[Any]:
        *settings, _model = choose_preprocessor(services, NO_PREPROCESSOR, perfect)
        label = services.preprocess.entry(NO_PREPROCESSOR).spec.label
        return [label, *settings, True, InputMode.simple.value, gr.update(selected=SINGLE), False]

    shown = [values["enabled"], values["input_mode"], tabs, values["use_preview"]]
    unit.problem.on(
        unit.pictures.take_as_map.click,
        take,
        [values["pixel_perfect"]],
        [values["preprocessor"], *sliders, values["control_mode"], *shown],
        **QUICK,
    )


def _connect_notes(services: PageServices, unit: UnitWidgets) -> None:
    names = ("preprocessor", "model", "guidance_start", "guidance_end", "control_mode")
    sources = [*(unit.values[name] for name in names), unit.control_type, unit.values["enabled"]]
    targets = [unit.notes.text, unit.notes.download, unit.values["union_type"]]
    say = shown_errors(lambda *chosen: unit_notes(services, *chosen))
    for name in ("preprocessor", "model", "control_mode", "enabled"):
        unit.values[name].change(say, sources, targets, **QUICK)
    for name in ("guidance_start", "guidance_end"):
        unit.values[name].release(say, sources, targets, **QUICK)
    unit.notes.recheck.click(say, sources, targets, **QUICK)
    shown = [unit.notes.stop]

    def download(name: str, model: str, progress: Any = gr.Progress()) -> tuple[Any, str]:  # noqa: B008 (gradio's way)
        try:
            return download_weights(services, run_by(services, name, model), progress), ""
        except ControlNetError as error:
            return gr.update(), unit.problem.said(error)

    unit.notes.download.click(lambda: gr.update(visible=True), None, shown, **QUICK).then(
        download,
        [unit.values["preprocessor"], unit.values["model"]],
        [unit.notes.text, unit.problem.text],
    ).then(lambda: gr.update(visible=False), None, shown, **QUICK).then(say, sources, targets, **QUICK)
    unit.notes.stop.click(lambda: _stop_downloads(services), None, None, **QUICK)
    _connect_offer(services, unit)


def _connect_offer(services: PageServices, unit: UnitWidgets) -> None:
    """The button that brings a model for the type, where none is here that fits."""
    kind, model, button = unit.control_type, unit.values["model"], unit.notes.offer

    def bring(chosen: str, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008 (gradio's way)
        try:
            return [*model_offer.bring(services, chosen, progress), ""]
        except ControlNetError as error:
            return [gr.update(), gr.update(), unit.problem.said(error)]

    for listener in (kind.change, unit.notes.recheck.click):
        unit.problem.on(listener, lambda chosen: model_offer.offer_update(services, chosen), [kind], [button], **QUICK)
    button.click(lambda: gr.update(visible=True), None, [unit.notes.stop], **QUICK).then(
        bring, [kind], [model, button, unit.problem.text]
    ).then(lambda: gr.update(visible=False), None, [unit.notes.stop], **QUICK)


def _stop_downloads(services: PageServices) -> None:
    services.weights.cancel()
    if services.model_files is not None:
        services.model_files.cancel()


def _connect_layers(services: PageServices, unit: UnitWidgets) -> None:
    editor, values = unit.layers, unit.values

    def shape(name: str, weight: float, model: str) -> tuple[str, str]:
        facts = model_facts(services, model)
        outputs = facts.sheet.outputs if facts is not None and facts.sheet is not None else DEFAULT_OUTPUTS
        return choose_shape(name, weight, outputs)

    sources = [editor.shape, values["weight"], values["model"]]
    editor.shape.input(shape, sources, [editor.weights, editor.plot], **QUICK)
    editor.weights.change(draw, [editor.weights], [editor.plot], **QUICK)


def _connect_schedule(unit: UnitWidgets) -> None:
    editor = unit.schedule
    editor.shape.input(
        choose_curve, [editor.shape, unit.values["weight"]], [editor.base.text, editor.base.plot], **QUICK
    )
    for curve in (editor.base, editor.hires):
        curve.text.change(draw_curve, [curve.text], [curve.plot], **QUICK)


def _connect_image_prompt(services: PageServices, unit: UnitWidgets) -> None:
    values, editor = unit.values, unit.image_prompt
    sources = [values[name] for name in ("model", "weight", "layer_weights", *IMAGE_PROMPT)]

    def drawn(model: str, *options: Any) -> str:
        facts = model_facts(services, model)
        sheet = None if facts is None else facts.sheet
        return draw_weights(sheet.outputs, *options) if sheet is not None and sheet.embeddings else ""

    def show(model: str, *options: Any) -> tuple[Any, ...]:
        return *shown_options(model_facts(services, model)), drawn(model, *options)

    values["model"].change(show, sources, [editor.part, editor.pulid, editor.plot], **QUICK)
    for name in ("ip_weight_type", "ip_style_boost", "ip_composition_boost", "ip_layer_weights", "layer_weights"):
        values[name].change(drawn, sources, [editor.plot], **QUICK)
    values["weight"].release(drawn, sources, [editor.plot], **QUICK)


def _connect_hires(unit: UnitWidgets, is_img2img: bool) -> None:
    """Which pass a unit acts in, and how in the second, is a question only where there are two."""
    shown = [unit.values["hr_option"], unit.schedule.hires_part]
    enabled = None if is_img2img else find_component("txt2img_hr-checkbox") or find_component("txt2img_enable_hr")
    if enabled is not None:
        for part in shown:
            part.visible = bool(enabled.value)
        enabled.change(lambda on: (gr.update(visible=bool(on)),) * 2, [enabled], shown, **QUICK)


def page_size(tab: str) -> list[Any]:
    """The tab's sliders of width and height; [] in the throw-away blocks in which hosts call `ui()`."""
    found = [find_component(f"{tab}_{name}") for name in ("width", "height")]
    return [component for component in found if component is not None] if all(found) else []


def choose_type(services: PageServices, control_type: str, pixel_perfect: bool, look: str = "") -> list[Any]:
    """Control type -> its preprocessors, its default's settings, models, and who is absent.

    `look`: of the picture (see ui/drawing.py); a drawing is not given to the type's default.
    """
    spec: Any = reader(services, control_type, look) or defaults.preprocessor(services, control_type)
    label = spec.label if spec is not None else NO_PREPROCESSOR
    names = services.library.names()
    *settings, _model = choose_preprocessor(services, label, pixel_perfect)
    free = spec is not None and spec.model_free
    model = gr.update(
        choices=models_of(control_type, names),
        value=NO_MODEL if free else defaults.model(services, control_type),
        visible=not free,
    )
    preprocessor = gr.update(choices=preprocessor_labels(services, control_type), value=label)
    return [preprocessor, *settings, model, absent_preprocessors(services, control_type)]


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


def download_weights(services: PageServices, name: str, progress: Any) -> str:
    """Brings the weights of a preprocessor, telling the page how far it is. Raises PreprocessorError."""
    spec = services.preprocess.entry(name).spec
    services.weights.download(spec, lambda part, file: progress(part, desc=file))
    return ""


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

    call.__annotations__ = {}  # gradio evaluates them for each event: a tenth of the page's building
    return call


def _has_resolution(services: Services, name: str) -> bool:
    return services.preprocess.entry(name).spec.resolution is not None


def fields_of(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The values of a unit's components by field."""
    return dict(zip(FIELDS, arguments, strict=False))
