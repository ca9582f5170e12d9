"""What stands in the panel's place while another ControlNet of the WebUI is on, whose page it would be taken for."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ..core.arguments import SLOTS
from .gradio_compat import not_saved, script_option


def build(
    tabname: str, title: str, folder: str, users: Sequence[str], switch_off: Callable[[], None] | None
) -> list[Any]:
    """The script's slots, for units of the API, and the button that makes room for the panel.

    folder: of the other ControlNet. users: other extensions that do not load without it. switch_off: None where the
    page may not change extensions.
    """
    name = html.escape(folder)
    lost = f" {html.escape(' and '.join(users))} will not load then; ours has its control models." if users else ""
    with gr.Group(elem_id=f"{tabname}_controlnet_beside"), gr.Accordion(title, open=False):
        gr.HTML(
            f'<p class="cnet-note cnet-warn">This WebUI has another ControlNet, which is on ({name}). It has the '
            f"panel, the routes /controlnet/* and the API's key ControlNet; units for this one go under the key "
            f"{html.escape(title)}.</p>"
        )
        if switch_off is None:
            gr.HTML('<p class="cnet-note">Whoever runs this WebUI can switch it off under Extensions.</p>')
        else:
            _switch(tabname, switch_off, lost)
    return [not_saved(gr.State(None))] * SLOTS


def _switch(tabname: str, switch_off: Callable[[], None], lost: str) -> None:
    label = "Use this ControlNet: switch the other one off and reload the page"
    button = gr.Button(label, elem_id=f"{tabname}_controlnet_switch")
    stays = "Models and settings stay. It can be switched on again under Extensions."
    gr.HTML(f'<p class="cnet-note">{stays}{lost}</p>')
    button.click(fn=switch_off, inputs=[], outputs=[], **script_option("restart_reload"))
