"""Writes what a preprocessor finds in a unit's picture as a file, which can be given again in the picture's place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from safetensors.torch import save_file

from ..core.errors import PreprocessorError
from ..core.uploads import upload_folder
from ..engine.services import PageServices
from .events import page_size
from .preview import DEFAULT_SIZE, LOOKED_AT, run_preprocessor
from .unit_panel import UnitWidgets


def connect_embeddings(services: PageServices, tab: str, index: int, unit: UnitWidgets) -> None:
    """Connects the button of one unit."""
    editor, size = unit.image_prompt, page_size(tab)

    def write(*arguments: Any) -> Any:
        fields: dict[str, Any] = dict(zip(LOOKED_AT, arguments, strict=False))
        target = arguments[len(LOOKED_AT) :] if size else DEFAULT_SIZE
        return gr.update(value=str(written(services, fields, index, target)), visible=True)

    inputs = [*(unit.values[name] for name in LOOKED_AT), *size]
    unit.problem.on(editor.write.click, write, inputs, [editor.written])


def written(services: PageServices, fields: dict[str, Any], index: int, target: Any) -> Path:
    """The file of the embeddings of a unit's picture, by name. Raises ControlNetError where they are none."""
    result = run_preprocessor(services, fields, index, target)
    tensors = result.found.tensors
    if tensors is None:
        raise PreprocessorError(
            f'"{result.spec.label}" makes a map, which is no embedding',
            field="module",
            remedy="choose the preprocessor that the model reads",
        )
    upload_folder().mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=upload_folder())) / f"{result.spec.id}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
