"""A first picture with the model that comes with the repository: what it knows, and a tour of five lines.

The page's script (assets/firstRun.js) shows it while that model is the loaded one, and gives unit 0 its drawing.
"""

from __future__ import annotations

import html
from typing import Any

from modules import sd_checkpoints

import gradio as gr  # isort: skip

DRAWING = sd_checkpoints.DEMO.with_name("drawing.png")
PROMPT = "a red heart on a gray background"
SHAPES = ("circle", "square", "triangle", "star", "heart")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "brown", "black", "white", "gray")
_TOUR = (
    "<b>Prompt</b>: this small model draws one flat shape on a flat background, 128 pixels wide. It knows {shapes}, "
    "in {colours}, and no other things.",
    "<b>Control</b>: the drawing in <i>ControlNet Unit 0</i> below is what the picture will follow; ▶ shows which of "
    "its lines the model sees.",
    "<b>Generate</b> (Ctrl+Enter): the outline is the drawing's, the colours are the prompt's.",
    "Untick <b>Enable</b> in the unit and generate again: that is the prompt alone.",
    "<b>Your own</b>: <i>New canvas</i> in the unit, draw an outline, Generate. With your own checkpoint (the list "
    "above) photographs work too: docs/start.md says what to get.",
)


def build() -> None:
    """Makes the tour at this place of the page; nothing where the model is not there."""
    title = next((x.title for x in sd_checkpoints.checkpoints_list.values() if _is_demo(x)), None)
    if title is None or not DRAWING.is_file():
        return
    gr.HTML(tour_html(title), elem_id="first_run")


def _is_demo(info: Any) -> bool:
    return sd_checkpoints.DEMO.is_file() and sd_checkpoints.DEMO.samefile(info.filename)


def tour_html(title: str) -> str:
    """`title`: of the checkpoint with which it is shown."""
    words = {"shapes": ", ".join(SHAPES), "colours": ", ".join(COLOURS)}
    lines = "".join(f"<li>{line.format(**words)}</li>" for line in _TOUR)
    return (
        f'<section class="first-run" hidden aria-label="First picture" data-checkpoint="{html.escape(title)}" '
        f'data-prompt="{html.escape(PROMPT)}"><ol>{lines}</ol>'
        '<p><button type="button" data-first-run="load">Load drawing and prompt</button> '
        '<button type="button" data-first-run="close">Close the tour</button></p></section>'
    )
