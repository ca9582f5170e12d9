"""Upload widgets that take uploads only.

gradio 3 opens whatever file of the server a request names in place of an upload, and copies it into the folder of
uploads; the check must therefore come before its own handling.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..core.errors import UnitError
from ..core.uploads import uploaded


def uploads_only(component: Any) -> Any:
    """The same component; a request that names a file which nobody uploaded is an error that the page shows."""
    original = component.preprocess

    def preprocess(payload: Any) -> Any:
        for name in _named(payload):
            try:
                uploaded(name, "upload")
            except UnitError as error:
                raise gr.Error(str(error)) from error
        return original(payload)

    component.preprocess = preprocess
    return component


def _named(payload: Any) -> Iterator[str]:
    """The files that a request names: gradio 3 sends `{"name", "is_file"}`, gradio 4 objects with a `path`."""
    if isinstance(payload, (list, tuple)):
        for item in payload:
            yield from _named(item)
    elif isinstance(payload, dict):
        if payload.get("is_file"):
            yield str(payload.get("name"))
        yield from (str(payload[key]) for key in ("path",) if payload.get(key))
        yield from _named([value for value in payload.values() if isinstance(value, (dict, list))])
    elif hasattr(payload, "root"):
        yield from _named(payload.root)
    elif getattr(payload, "path", None):
        yield str(payload.path)
    elif hasattr(payload, "background"):  # what is drawn over a picture
        yield from _named([payload.background, payload.composite, *payload.layers])
