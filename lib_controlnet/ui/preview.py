"""The preprocessor's map on the page: made, stopped, shown with its pose, taken as the picture."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS, as_mapping
from ..core.batch import read_source
from ..core.errors import ControlNetError, UnitError
from ..core.hints import inpaint_display
from ..core.images import Picture
from ..core.modes import ResizeMode
from ..core.units import ControlNetUnit, parse_unit
from ..engine.generation import Picture as Source
from ..engine.look import Target, look
from ..engine.preprocess import PreprocessResult
from ..engine.services import PageServices
from .events import QUICK, fields_of, page_size, shown_errors
from .gradio_compat import script_option
from .img2img_source import LABEL, SOURCE_LABEL, host_pictures
from .unit_panel import UnitWidgets

DEFAULT_SIZE = (512, 512)
POSES = "OpenPose"
"""The control type with which poses are drawn."""


def connect_preview(services: PageServices, tab: str, index: int, unit: UnitWidgets) -> None:
    """Connects the run button, its stop button and the pose of one unit."""
    pictures, values = unit.pictures, unit.values
    known = page_size(tab)
    host = host_pictures() if tab == "img2img" else None
    own = [*unit.arguments(), *known]

    def run(progress: Any = gr.Progress(), *arguments: Any) -> tuple[Any, str, Any]:  # noqa: B008 (gradio's way)
        target = arguments[len(FIELDS) : len(own)] if known else DEFAULT_SIZE
        try:
            fields, label = fields_of(arguments), LABEL
            if host is not None:
                fields, label = with_source(fields, *host.read(arguments[len(own) :]))
            result = run_preprocessor(services, fields, index, target, progress)
        except ControlNetError as error:
            raise gr.Error(str(error.for_unit(index))) from error
        pose = result.found.pose
        shown = gr.update(value=shown_map(result), label=label)
        return shown, "" if pose is None else json.dumps(pose), gr.update(visible=pose is not None)

    shown = [pictures.preview_group, unit.show_preview]
    unit.run.click(lambda: (gr.update(visible=True), True), None, shown, **QUICK)
    unit.run.click(
        run,
        own if host is None else [*own, *host.inputs()],
        [values["preview"], pictures.pose, pictures.pose_group],
        **({} if host is None else script_option(host.script(len(own)))),
    )
    pictures.draw_pose.click(
        shown_errors(lambda text: (drawn_pose(services, text), True, True), index),
        [pictures.pose],
        [values["preview"], values["use_preview"], values["enabled"]],
        **QUICK,
    )
    unit.control_type.input(
        lambda kind: [gr.update(visible=True)] * 2 + [True] if kind == POSES else [gr.update()] * 3,
        [unit.control_type],
        [pictures.pose_group, *shown],
        **QUICK,
    )
    pictures.cancel.click(services.preprocess.cancel, None, None, **QUICK)
    unit.show_preview.change(lambda on: gr.update(visible=on), [unit.show_preview], [pictures.preview_group], **QUICK)


def drawn_pose(services: PageServices, text: str) -> Any:
    """The map of a pose's JSON, as the detector or the editor gives it. Raises UnitError for another text."""
    try:
        pose = json.loads(text)
        return services.draw_pose(pose[0] if isinstance(pose, list) else pose)
    except Exception as error:  # the annotator's errors have no class of ours
        raise UnitError(
            "this is no pose",
            field="pose",
            found=f"{type(error).__name__}: {error}",
            remedy='give OpenPose JSON with "people", "canvas_width" and "canvas_height"',
        ) from error


def with_source(fields: dict[str, Any], source: Picture | None, resize_mode: ResizeMode) -> tuple[dict[str, Any], str]:
    """A unit's fields as a generation takes them, with the host's picture where the unit has none; the map's label."""
    has_own = fields["image"] is not None or bool(fields["merge_images"] or fields["batch_images"])
    if source is None or (fields["own_image"] and has_own):
        return fields, LABEL
    own = {"image": source.pixels, "mask": source.mask, "resize_mode": resize_mode.value, "input_mode": "simple"}
    return {**fields, **own}, SOURCE_LABEL


def run_preprocessor(
    services: PageServices, fields: dict[str, Any], index: int, target: Any, progress: Any = None
) -> PreprocessResult:
    """What a generation of `target` (width, height) would compute for a unit's widgets, before its fitting.

    `progress` is gradio's, told the part done.
    """
    asked = {**fields, "own_image": True, "use_preview": False}
    unit = parse_unit({**as_mapping([asked[name] for name in FIELDS]), "enabled": True}, index)
    label = services.preprocess.entry(unit.preprocessor).spec.label
    return look(
        services,
        unit,
        Source(*_picture(unit), unit.resize_mode),
        Target((int(target[0]), int(target[1]))),
        None if progress is None else lambda part: progress(part, desc=label),
    )


def shown_map(result: PreprocessResult) -> Any:
    """A result as the page shows it: (h, w, 3), or with a half transparent mask (h, w, 4); of an embedding where in the
    picture it was found. Raises PreprocessorError where nothing can be shown.
    """
    if result.found.map is None and result.found.shown is not None:
        return result.found.shown
    return result.map if result.map.shape[2] == 3 else inpaint_display(result.map)


def _picture(unit: ControlNetUnit) -> tuple[Any, Any]:
    """The unit's picture, or the first of its list."""
    if unit.image is not None:
        return unit.image, unit.mask
    if unit.images:
        return read_source(unit.images[0], unit.index), None
    raise UnitError(
        "there is no picture to preprocess",
        field="image",
        remedy="upload one in the Single Image tab, in img2img in its own tab",
    )


__all__ = ["connect_preview", "run_preprocessor", "shown_errors", "shown_map"]
