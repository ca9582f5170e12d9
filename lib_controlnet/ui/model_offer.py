"""A control model for the chosen type and the loaded checkpoint, where none is here: said, and brought on a click.

Nothing leaves the machine before that click.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..core.control_types import ALL, NO_MODEL, models_of
from ..core.errors import ControlNetError, ModelFileError
from ..core.model_catalogue import OfferedModel, recommended
from ..engine import defaults
from ..engine.services import PageServices
from ..engine.weights import human_size


def offered(services: PageServices, control_type: str) -> OfferedModel | None:
    """What is recommended for a type; None where something fits already, or nothing is known that would."""
    if services.model_files is None or control_type == ALL:
        return None
    if defaults.model(services, control_type) != NO_MODEL:
        return None
    try:
        return recommended(control_type, services.base_model().kind)
    except ControlNetError:
        return None  # no checkpoint is loaded, so nobody knows what would fit


def offer_update(services: PageServices, control_type: str) -> Any:
    """Update of the button that brings it."""
    model = offered(services, control_type)
    if model is None:
        return gr.update(visible=False)
    return gr.update(
        visible=True, value=f"Recommended: {model.name}, {human_size(model.size)}, {model.licence}: download"
    )


def bring(services: PageServices, control_type: str, progress: Any) -> tuple[Any, Any]:
    """Downloads it; updates of the list of models and of the button. Raises ControlNetError."""
    model = offered(services, control_type)
    if model is None or services.model_files is None:
        raise ModelFileError(
            "there is nothing to download for this type", field="model", remedy="choose a control type and a checkpoint"
        )
    fetch(services, model, progress)
    found = services.library.find(model.name.rpartition(".")[0]).name
    listed = models_of(control_type, services.library.names())
    return gr.update(choices=listed, value=found), offer_update(services, control_type)


def fetch(services: PageServices, model: OfferedModel, progress: Any) -> None:
    """Brings one file into the first of the model folders and looks at them again. Raises ControlNetError."""
    if services.model_files is None:
        raise ModelFileError("this host offers no downloads of control models", field="model")
    try:
        services.model_files.download(model, lambda part, name: progress(part, desc=name))
    except ControlNetError as error:
        raise ModelFileError(error.problem, field="model", found=error.found, remedy=error.remedy) from error
    services.library.refresh()
