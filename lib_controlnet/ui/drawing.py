"""What a unit's picture looks like, said before the click; and which preprocessor gets what is drawn on the canvas.

The page's script writes into `drawn` whether the picture comes from the canvas's blank paper: a drawing is a map
already, and goes to the model as it is. What somebody uploads keeps the preprocessor that was chosen for it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.control_types import LINE_TYPES, NO_PREPROCESSOR, default_preprocessor, preprocessors_of
from ..core.drawings import Look, look_of
from ..core.errors import ControlNetError
from ..core.images import is_empty, read_mask, read_picture
from ..core.inputs import marks
from ..core.preprocessors import PreprocessorSpec
from ..core.strengths import as_numbers
from ..engine.services import Services
from .gradio_compat import not_saved

DRAWN = "drawn"
"""What the page's script writes."""


@dataclass
class DrawingWidgets:
    """`drawn` is the script's; `look` and `masked` remember what picture and mask were like when they last changed;
    `note` tells."""

    drawn: Any
    look: Any
    masked: Any
    note: Any


def build_drawing(prefix: str) -> DrawingWidgets:
    """Makes the widgets at this place of the page."""
    drawn = gr.Textbox("", label="Drawn", elem_id=f"{prefix}_drawn", elem_classes=["cnet-unseen"])
    look = gr.Textbox("", label="Look", visible=False)
    masked = gr.Textbox("", label="Masked", visible=False)
    note = gr.HTML("", elem_id=f"{prefix}_picture_note", elem_classes=["cnet-notes"])
    return DrawingWidgets(not_saved(drawn), not_saved(look), not_saved(masked), note)


def palette_html(named: Sequence[tuple[str, str]]) -> str:
    """Names and colours for the canvas, as an element that nobody sees."""
    return f'<span data-cnet-palette="{html.escape(json.dumps(named))}"></span>'


def strengths_html() -> str:
    """What one slider of strength means for each control type, likewise."""
    return f'<span data-cnet-strengths="{html.escape(json.dumps(as_numbers()))}"></span>'


def remembered(drawn: str, image: Any) -> str:
    """What `look` holds of a picture: "", or whether it is drawn and what it looks like. Raises UnitError."""
    picture = read_picture(image)
    if picture is None:
        return ""
    return f"{DRAWN if drawn == DRAWN else 'given'}: {look_of(picture.pixels).value}"


def remembered_mask(mask: Any) -> str:
    """What `masked` holds of a mask: "masked" where it says anything. Raises UnitError."""
    return "masked" if not is_empty(mask) and marks(read_mask(mask)) else ""


def _read(look: str) -> tuple[bool, Look | None]:
    drawn, _, value = look.partition(": ")
    return drawn == DRAWN, Look(value) if value else None


def reader(services: Services, control_type: str, look: str) -> PreprocessorSpec | None:
    """The preprocessor that gives the model a drawing as it is drawn; dark lines on white are turned over where the
    type has something for that. None where the picture is no drawing, or the type works on pictures and not on maps.
    """
    drawn, kind = _read(look)
    specs: list[PreprocessorSpec] = [entry.spec for entry in services.annotators.entries]
    usual = default_preprocessor(control_type, specs)
    if not drawn or usual is None or not _makes_map(usual):
        return None
    ordered = preprocessors_of(control_type, specs)
    turning = [spec for spec in ordered if spec.reads_dark_lines and kind is Look.dark_lines]
    return next(iter(turning or ordered), None)


def reader_when_changed(services: Services, control_type: str, before: str, now: str) -> PreprocessorSpec | None:
    """The reader where a drawing has just begun or its lines and paper have changed places; else None, so that what the
    user has chosen meanwhile stays.
    """
    old, new = (reader(services, control_type, look) for look in (before, now))
    return None if new is None or (old is not None and old.id == new.id) else new


def _makes_map(spec: PreprocessorSpec) -> bool:
    other = spec.model_free or spec.effect or spec.accepts_mask or spec.by_model or spec.scatters
    return spec.returns_image and not other


def picture_note(services: Services, look: str, masked: str, preprocessor: str, control_type: str) -> str:
    """What is to be said of the picture (HTML): that the model expects another, or how a drawing comes to it."""
    drawn, kind = _read(look)
    try:
        spec = services.preprocess.entry(preprocessor).spec
    except ControlNetError:
        return ""  # running it says what is wrong with it
    if kind is None or not _makes_map(spec):
        return ""
    warning = _mask_warning(services, kind, spec) if masked else _warning(services, kind, spec, control_type)
    if warning:
        return f'<p class="cnet-note cnet-warn">{html.escape(warning)}.</p>'
    if not drawn:
        return ""
    how = "turned over: its dark lines become white ones" if spec.reads_dark_lines else "as it is"
    said = f"The drawing goes to the model {how}" if _is_map(spec) else f'"{spec.label}" makes the map of the drawing'
    return f'<p class="cnet-note">{html.escape(said)}.</p>'


def _is_map(spec: PreprocessorSpec) -> bool:
    return spec.id == NO_PREPROCESSOR or spec.reads_dark_lines


def _mask_warning(services: Services, kind: Look, spec: PreprocessorSpec) -> str:
    """A mask for a preprocessor that takes none is itself the picture, as in sd-webui-controlnet: easily overlooked."""
    regional = services.masks_are_regions and kind is not Look.empty
    if regional or services.setting("controlnet_ignore_noninpaint_mask", False):
        return ""
    taken = f'"{spec.label}" takes no mask: what is drawn in the mask goes to it in place of the picture'
    return f"{taken}. Clear the mask (Draw, Mask, Clear), or draw in the layer Drawing"


def _warning(services: Services, kind: Look, spec: PreprocessorSpec, control_type: str) -> str:
    if kind is Look.empty:
        return "The picture is empty: the model is told nothing. Draw on it, or choose another"
    if not _is_map(spec):
        return ""
    as_it_is, lines = spec.id == NO_PREPROCESSOR, control_type in LINE_TYPES
    if spec.reads_dark_lines and kind is Look.light_lines:
        return (
            f'The picture is white lines on black already, and "{spec.label}" turns it over: choose "{NO_PREPROCESSOR}"'
        )
    if as_it_is and lines and kind is Look.dark_lines:
        expected = f"models for {control_type} expect white lines on black"
        return f"The picture is dark lines on white, and {expected}: {_turned(services, control_type)}"
    if kind is Look.photograph and (lines or spec.reads_dark_lines):
        return f"The picture looks like a photograph, and lines are expected: choose {_finder(services, control_type)}"
    return ""


def _turned(services: Services, control_type: str) -> str:
    specs = preprocessors_of(control_type, [entry.spec for entry in services.annotators.entries])
    labels = [f'"{spec.label}"' for spec in specs if spec.reads_dark_lines]
    return f"choose {labels[0]}" if labels else "invert it on the canvas (Draw, Invert)"


def _finder(services: Services, control_type: str) -> str:
    """A preprocessor of the type that finds lines in a picture."""
    specs = preprocessors_of(control_type, [entry.spec for entry in services.annotators.entries])
    return next((f'"{spec.label}"' for spec in specs if not _is_map(spec)), "a preprocessor that finds lines")
