"""Widgets under the names extensions use.

What a widget shows, gradio 4 reads by the names in the signature of its `__init__`: hence `signed_as`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from modules import gradio_versions

import gradio as gr  # isort: skip
from gradio.context import Context  # isort: skip


Init = TypeVar("Init", bound=Callable[..., None])


def signed_as(init: Any) -> Callable[[Init], Init]:
    """Gives a widget's `__init__` the signature of the one it calls; its own stays what type checkers see."""
    signed: Any = wraps(init)
    return signed


class NamedByGradio:
    """Is drawn as the gradio widget that it derives from."""

    def get_block_name(self) -> str:
        widget = next(x for x in type(self).__mro__ if x.__module__.split(".")[0] == "gradio")
        return widget.__name__.lower()


class FormComponent(NamedByGradio):
    """Fits into gradio's forms: neighbours are drawn without gaps."""

    def get_expected_parent(self) -> type:
        return gr.components.Form


class FormRow(FormComponent, gr.Row): ...


class FormColumn(FormComponent, gr.Column): ...


class FormGroup(FormComponent, gr.Group): ...


class FormHTML(FormComponent, gr.HTML): ...


class FormColorPicker(FormComponent, gr.ColorPicker): ...


class ToolButton(FormComponent, gr.Button):
    """A small button with one symbol."""

    @signed_as(gr.Button.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        classes, tooltip = kwargs.pop("elem_classes", []), kwargs.pop("tooltip", None)
        super().__init__(*args, elem_classes=["tool", *classes], **kwargs)
        self.webui_tooltip = tooltip


class ResizeHandleRow(NamedByGradio, gr.Row):
    """A row of two columns."""

    @signed_as(gr.Row.__init__)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.elem_classes = [*(self.elem_classes or []), "resize-handle-row"]


class DropdownMulti(FormComponent, gr.Dropdown):
    """Several choices at once."""

    @signed_as(gr.Dropdown.__init__)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "multiselect": True})


class DropdownEditable(FormComponent, gr.Dropdown):
    """Takes what is typed, too."""

    @signed_as(gr.Dropdown.__init__)
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "allow_custom_value": True})


class InputAccordion(NamedByGradio, gr.Checkbox):
    """An accordion whose being open is an input: a hidden checkbox and an accordion that follow each other."""

    global_index = 0

    @signed_as(gr.Checkbox.__init__)
    def __init__(self, value: bool = False, **kwargs: Any) -> None:
        if Context.root_block is None:  # gradio 4 makes a widget anew for the session in which it was updated
            super().__init__(value, **kwargs)
            return
        self.accordion_id = kwargs.get("elem_id") or self._next_id()
        super().__init__(value, **{**kwargs, "elem_id": f"{self.accordion_id}-checkbox", "visible": False})
        follow = f'function(checked){{ inputAccordionChecked("{self.accordion_id}", checked); }}'
        self.change(fn=None, inputs=[self], **gradio_versions.script(follow))
        self.accordion = gr.Accordion(
            **{
                **kwargs,
                "elem_id": self.accordion_id,
                "label": kwargs.get("label", "Accordion"),
                "elem_classes": ["input-accordion"],
                "open": value,
            }
        )

    @classmethod
    def _next_id(cls) -> str:
        index, InputAccordion.global_index = InputAccordion.global_index, InputAccordion.global_index + 1
        return f"input-accordion-{index}"

    def extra(self) -> gr.Column:
        """`with accordion.extra():` puts widgets into the accordion's label."""
        return gr.Column(elem_id=f"{self.accordion_id}-extra", elem_classes="input-accordion-extra", min_width=0)

    def __enter__(self) -> InputAccordion:
        self.accordion.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.accordion.__exit__(*error)
