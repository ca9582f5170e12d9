"""The picture of the img2img tab, for the preview of a unit that has none of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.images import Picture, read_mask, read_picture
from ..core.modes import ResizeMode
from .gradio_compat import find_component, not_saved

SOURCES = {
    "img2img_img2img_tab": ("img2img_image", None),
    "img2img_img2img_sketch_tab": ("img2img_sketch", None),
    "img2img_inpaint_tab": ("img2maskimg", None),
    "img2img_inpaint_sketch_tab": ("inpaint_sketch", None),
    "img2img_inpaint_upload_tab": ("img_inpaint_base", "img_inpaint_mask"),
}
"""The host's tabs: their pictures, and their masks where those are separate."""
LABEL = "Preprocessor Preview"
SOURCE_LABEL = "Preprocessor Preview of the whole img2img picture"
_MODES = {mode.host_index: mode for mode in ResizeMode}
_CHOOSE = """(...values) => {
    const tabs = Array.from(gradioApp().querySelectorAll("#mode_img2img > .tabitem"));
    const open = tabs.find((tab) => tab.style.display !== "none")?.id ?? "";
    const first = %(first)d, kept = %(kept)s;
    values[first] = open;
    kept.forEach((tab, number) => { if (tab !== open) values[first + 1 + number] = null; });
    return values.slice(0, %(count)d);
}"""
"""Names the tab that is open, and keeps the others' pictures from travelling."""


@dataclass(frozen=True)
class HostPictures:
    """Inputs of an event, behind its own: the tab's name, the host's pictures and masks, and its resize mode."""

    tab: Any
    pictures: dict[str, Any]
    resize_mode: Any | None

    def inputs(self) -> list[Any]:
        """The components; what a handler gets of them goes to `read`."""
        return [self.tab, *self.pictures.values(), *([self.resize_mode] if self.resize_mode is not None else [])]

    def script(self, before: int) -> str:
        """The JavaScript of an event with `before` inputs of its own."""
        tabs = [tab for tab, names in SOURCES.items() for name in names if name in self.pictures]
        return _CHOOSE % {"first": before, "kept": json.dumps(tabs), "count": before + len(self.inputs())}

    def read(self, values: Sequence[Any]) -> tuple[Picture | None, ResizeMode]:
        """The picture of the open tab, if there is one, and how the host fits it."""
        found = dict(zip(self.pictures, values[1:], strict=False))
        name, mask_name = SOURCES.get(str(values[0]), ("", None))
        picture, mask = read_picture(_drawn(found.get(name))), found.get(mask_name or "")
        if picture is not None and mask is not None:
            picture = Picture(picture.pixels, read_mask(mask))
        mode = values[len(self.pictures) + 1] if self.resize_mode is not None else 0
        return picture, _MODES.get(mode, ResizeMode.just_resize)


def host_pictures() -> HostPictures | None:
    """The img2img tab's, where this page has them; called while the page is made."""
    names = [name for names in SOURCES.values() for name in names if name is not None]
    found = {name: component for name in names if (component := find_component(name)) is not None}
    if not found:
        return None
    return HostPictures(not_saved(gr.Textbox("", visible=False)), found, find_component("resize_mode"))


def _drawn(value: Any) -> Any:
    """What gradio 4's editor gives, as gradio 3's sketch gives it."""
    if not isinstance(value, dict) or "layers" not in value:
        return value
    layer = next(iter(value["layers"]), None)
    return {"image": value["background"], "mask": layer}
