"""The preprocessor's map on the page: made, stopped, shown with its pose, taken as the picture."""

from __future__ import annotations

import html
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS, as_mapping
from ..core.batch import read_source
from ..core.errors import ControlNetError, UnitError
from ..core.hints import inpaint_display
from ..core.images import Picture, read_picture
from ..core.modes import ResizeMode
from ..core.resize import pixel_perfect_resolution
from ..core.units import ControlNetUnit, parse_unit
from ..engine.generation import Picture as Source
from ..engine.look import Target, look
from ..engine.preprocess import PreprocessResult
from ..engine.services import PageServices
from .events import QUICK, page_size
from .gradio_compat import script_option
from .img2img_source import LABEL, SOURCE_LABEL, HostPictures, host_pictures
from .problems import unchanged
from .unit_panel import UnitWidgets

DEFAULT_SIZE = (512, 512)
POSES = "OpenPose"
"""The control type with which poses are drawn."""
LOOKED_AT = (
    "image",
    "mask",
    "own_image",
    "pixel_perfect",
    "preprocessor",
    "model",
    "resolution",
    "threshold_a",
    "threshold_b",
    "resize_mode",
    "input_mode",
    "batch_images",
    "merge_images",
    "batch_dir",
)
"""The fields on which a map depends; the others' pictures need not travel for it."""
_LIVE = ("resolution", "threshold_a", "threshold_b")
_QUICK_ENOUGH = 0.5
"""Seconds that a preprocessor with a network may have taken for its map to follow the sliders."""


@dataclass(frozen=True)
class _Preview:
    """The preview of one unit. `size`: the tab's width and height. `host`: img2img's pictures."""

    services: PageServices
    unit: UnitWidgets
    index: int
    size: Sequence[Any]
    host: HostPictures | None

    def own(self) -> list[Any]:
        """The inputs of a run before the host's."""
        return [*(self.unit.values[name] for name in LOOKED_AT), *self.size]

    def inputs(self) -> list[Any]:
        """The inputs of a run."""
        return self.own() if self.host is None else [*self.own(), *self.host.inputs()]

    def outputs(self) -> list[Any]:
        """Map, pose, its group, what is said of the map, what went wrong."""
        pictures = self.unit.pictures
        return [self.unit.values["preview"], pictures.pose, pictures.pose_group, pictures.made, self.unit.problem.text]

    def options(self) -> dict[str, Any]:
        """Of the event that runs."""
        return {} if self.host is None else script_option(self.host.script(len(self.own())))

    def run(self, arguments: tuple[Any, ...], progress: Any = None) -> list[Any]:
        """Values of `outputs`."""
        own = len(self.own())
        fields: dict[str, Any] = dict(zip(LOOKED_AT, arguments, strict=False))
        label = LABEL
        target = arguments[len(LOOKED_AT) : own] if self.size else DEFAULT_SIZE
        begin = time.perf_counter()
        try:
            if self.host is not None:
                fields, label = with_source(fields, *self.host.read(arguments[own:]))
            result = run_preprocessor(self.services, fields, self.index, target, progress)
            shown = shown_map(result)
        except ControlNetError as error:
            return [None, *unchanged(2), "", self.unit.problem.said(error)]
        pose, seconds = result.found.pose, time.perf_counter() - begin
        made = made_note(result, fields, target, seconds)
        text = "" if pose is None else json.dumps(pose)
        return [gr.update(value=shown, label=label), text, gr.update(visible=pose is not None), made, ""]

    def follow(self, arguments: tuple[Any, ...]) -> list[Any]:
        """The same where a map is shown and its preprocessor is quick; else nothing: the page calls it out of date."""
        *inputs, made = arguments
        name = inputs[LOOKED_AT.index("preprocessor")]
        try:
            follows = bool(made) and _is_quick(self.services, name, made)
        except ControlNetError as error:
            return [*unchanged(4), self.unit.problem.said(error)]
        return self.run(tuple(inputs)) if follows else unchanged(5)


def connect_preview(services: PageServices, tab: str, index: int, unit: UnitWidgets) -> None:
    """Connects the run button, its stop button and the pose of one unit."""
    pictures, values = unit.pictures, unit.values
    host = host_pictures() if tab == "img2img" else None
    preview = _Preview(services, unit, index, page_size(tab), host)

    def run(progress: Any = gr.Progress(), *arguments: Any) -> list[Any]:  # noqa: B008 (gradio's way)
        return preview.run(arguments, progress)

    shown = [pictures.preview_group, unit.show_preview]
    unit.run.click(lambda: (gr.update(visible=True), True), None, shown, **QUICK)
    unit.run.click(run, preview.inputs(), preview.outputs(), **preview.options())
    _connect_live(preview)
    unit.problem.on(
        pictures.draw_pose.click,
        lambda text: (drawn_pose(services, text), True, True),
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


def _connect_live(preview: _Preview) -> None:
    """The map follows what it depends on where that is quick; a map of another picture goes."""
    unit = preview.unit
    values, made = unit.values, unit.pictures.made
    inputs = [*preview.inputs(), made]

    def follow(*arguments: Any) -> list[Any]:
        return preview.follow(arguments)

    for name in _LIVE:
        values[name].release(follow, inputs, preview.outputs(), **preview.options(), **QUICK)
    for name in ("preprocessor", "pixel_perfect", "resize_mode"):
        values[name].input(follow, inputs, preview.outputs(), **preview.options(), **QUICK)
    gone = [values["preview"], unit.pictures.pose, made, values["use_preview"]]
    for listener in (values["image"].upload, values["image"].clear):
        listener(lambda: (None, "", "", False), None, gone, **QUICK)


def _is_quick(services: PageServices, name: str, made: str) -> bool:
    """Whether a preprocessor's map may follow a slider: it has no network, or the last time was short."""
    spec = services.preprocess.entry(name).spec
    if not spec.weights and not getattr(spec, "libraries", ()):
        return True
    return f'data-by="{html.escape(spec.id)}"' in made and _seconds(made) < _QUICK_ENOUGH


def _seconds(made: str) -> float:
    return float(made.partition('data-seconds="')[2].partition('"')[0] or "inf")


def made_note(result: PreprocessResult, fields: dict[str, Any], target: Any, seconds: float) -> str:
    """What is said of a map (HTML): by what, how long it took, and whether its size is the picture's."""
    sized = result.spec.resolution is not None
    note = f"{result.spec.label}{f' at {result.resolution} px' if sized else ''}, {seconds:.2f} s"
    if sized and not fields["pixel_perfect"]:
        note += _size_advice(result, fields, target)
    notes = "".join(f'<p class="cnet-note cnet-warn">{html.escape(text)}.</p>' for text in result.notes)
    return (
        f'<p class="cnet-note" data-by="{html.escape(result.spec.id)}" data-seconds="{seconds:.3f}" '
        f'data-said="{secrets.token_hex(4)}">{html.escape(note)}</p>{notes}'
    )


def _size_advice(result: PreprocessResult, fields: dict[str, Any], target: Any) -> str:
    picture = read_picture(fields["image"])
    if picture is None:
        return ""
    width, height = int(target[0]), int(target[1])
    best = pixel_perfect_resolution(picture.pixels, height, width, ResizeMode(fields["resize_mode"]))
    if abs(best - result.resolution) <= best // 8:
        return ""
    return f"; {best} px fits a picture of {width} × {height}: tick Pixel Perfect"


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
    asked = {**dict.fromkeys(FIELDS), **fields, "own_image": True, "use_preview": False}
    mapping = as_mapping([asked[name] for name in FIELDS])
    known = {name: value for name, value in mapping.items() if name in fields or name == "images"}
    unit = parse_unit({**known, "enabled": True}, index)
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
