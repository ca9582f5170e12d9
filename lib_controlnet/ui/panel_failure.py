"""What stands in the panel's place where it could not be made."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from ..core.arguments import SLOTS
from .gradio_compat import not_saved


def blocks_here() -> list[Any]:
    """What has been made at this place of the page so far."""
    return list(getattr(Context.block, "children", ()))


def stand_in(tabname: str, error: Exception, before: Sequence[Any]) -> list[Any]:
    """The script's slots, and a text that says why there is no panel; what has been made since `before` is hidden.

    A host whose call of `ui()` fails drops all of a script's arguments, and with them every unit of the API, unseen.
    """
    for block in blocks_here():
        if block not in before:
            block.visible = False
    reason = html.escape(f"{type(error).__name__}: {error}"[:500])
    text = f"The ControlNet panel could not be made, and a unit that is enabled stops its job. {reason}"
    gr.HTML(f'<p class="cnet-note cnet-bad">{text}</p>', elem_id=f"{tabname}_controlnet_failed")
    return [not_saved(gr.State(None))] * SLOTS
