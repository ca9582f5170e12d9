"""What a unit can find out about itself: the weight that reaches a target, floor and ceiling.

All of it is a part of the host's own job, with its progress and its Interrupt: the page's script writes the question
into the panel's study and presses Generate.
"""

from __future__ import annotations

import gradio as gr

from .gradio_compat import not_saved, small_button


def build_measuring(prefix: str, can_caption: bool) -> None:
    """Makes the widgets at this place of the page. Where nothing captions, the page's script says so at once."""
    with gr.Accordion("Measure", open=False, elem_id=f"{prefix}_measure_group"):
        with gr.Row(elem_classes=["cnet-buttons"]):
            not_saved(
                gr.Slider(
                    0.0, 1.0, value=0.8, step=0.01, label="Adherence wanted", interactive=True,
                    elem_id=f"{prefix}_measure_target",
                )
            )  # fmt: skip
            not_saved(
                gr.Checkbox(False, label="Shorten the range too", interactive=True, elem_id=f"{prefix}_measure_shorten")
            )
        with gr.Row(elem_classes=["cnet-buttons"]):
            small_button(
                "Find weight",
                "The least weight that reaches it, in at most 8 pictures on one seed; the answer is put into the unit",
                elem_id=f"{prefix}_find_weight",
            )
            small_button(
                "Floor and ceiling",
                "One more picture without control, and the source picture through the VAE",
                elem_id=f"{prefix}_bounds",
            )
            small_button(
                "What does it see?",
                "Pictures under the map without your prompt, described by the WebUI; where that is not what the prompt "
                "says, remedies are tried and ranked",
                elem_id=f"{prefix}_seen",
                elem_classes=[] if can_caption else ["cnet-no-interrogator"],
            )
            small_button("Stop", "The WebUI's Interrupt", elem_id=f"{prefix}_measure_stop")
        gr.HTML("", elem_id=f"{prefix}_measured", elem_classes=["cnet-measured"])
