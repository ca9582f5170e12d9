"""The top-level tab "ControlNet": one page for each thing that is not about a single picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ..engine.services import PageServices
from . import compare_page, models_page

Page = tuple[str, Callable[[], None]]
"""A page's title and what makes its widgets at the place of the call."""


def build(services: PageServices, pages: Sequence[Page] = ()) -> list[tuple[Any, str, str]]:
    """What the host's `ui_tabs` callback returns; `pages` come behind Compare and Models."""
    with gr.Blocks(analytics_enabled=False) as tab, gr.Tabs(elem_id="controlnet_pages"):
        with gr.Tab("Compare", elem_id="controlnet_page_compare"):
            compare_page.build(services)
        with gr.Tab("Models", elem_id="controlnet_page_models") as models:
            models_page.build(services, models)
        for title, make in pages:
            with gr.Tab(title, elem_id=f"controlnet_page_{title.lower()}"):
                make()
    return [(tab, "ControlNet", "controlnet_tab")]
