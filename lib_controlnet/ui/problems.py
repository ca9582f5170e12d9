"""What went wrong in a unit, said in it until it is mended: a message that fades hides its own remedy."""

from __future__ import annotations

import html
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError


@dataclass(frozen=True)
class Problem:
    """The place in unit `index` where it stands; the page's script moves it to the field and takes it away when that
    is changed.
    """

    text: Any
    index: int

    def on(
        self, listener: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any, **options: Any
    ) -> Any:
        """Connects an event: a handler that succeeds empties the place, one of our errors fills it."""
        count = len(outputs or ())

        def call(*arguments: Any) -> list[Any]:
            try:
                result = handler(*arguments)
            except ControlNetError as error:
                return [*unchanged(count), self.said(error)]
            return [*_each(result, count), ""]

        call.__annotations__ = {}  # gradio evaluates them for each event: a tenth of the page's building
        return listener(call, inputs, [*(outputs or ()), self.text], **options)

    def said(self, error: ControlNetError) -> str:
        """The error as the place shows it (HTML); never the same text twice, since the page would not see it again."""
        own = error.for_unit(self.index)
        return (
            f'<p class="cnet-note cnet-bad" role="alert" data-field="{html.escape(own.field or "")}" '
            f'data-said="{secrets.token_hex(4)}">{html.escape(str(own))}</p>'
        )


def build_problem(prefix: str, index: int) -> Problem:
    """Makes the place here."""
    return Problem(gr.HTML("", elem_id=f"{prefix}_problem", elem_classes=["cnet-problem"]), index)


def unchanged(count: int) -> list[Any]:
    """Updates that leave so many components as they are."""
    return [gr.update() for _ in range(count)]


def _each(result: Any, count: int) -> Sequence[Any]:
    return () if count == 0 else (result,) if count == 1 else result
