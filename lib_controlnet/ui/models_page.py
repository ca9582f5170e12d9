"""The page "Models": control models and preprocessors' weights, whether they are here and fit, and what to get."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..core.control_types import ALL, type_names
from ..core.errors import ControlNetError
from ..core.model_catalogue import named
from ..engine import defaults
from ..engine.services import PageServices
from . import model_offer
from .events import QUICK, download_weights, shown_errors
from .folders import open_folder
from .gradio_compat import not_saved
from .models_table import (
    ANY,
    Wanted,
    kinds,
    lacking,
    model_table,
    offer_table,
    offers,
    problem_table,
    skipped_table,
    weight_table,
)

_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Widgets:
    """The page's widgets. `filters`: words, kind, type, whether it must fit. `tables`: what `_show` fills."""

    filters: list[Any]
    tables: list[Any]


def build(services: PageServices, tab: Any) -> None:
    """Makes the page's widgets; the tables are filled when `tab` is opened, since all files are looked into."""
    refresh = gr.Button("Look again", elem_id="controlnet_models_refresh")
    filters = _filters(services)
    said = gr.HTML("", elem_id="controlnet_models_lacking")
    models = gr.HTML("", elem_id="controlnet_models_table")
    model = _one_file(services)
    folder = _folders(services)
    offered = gr.HTML("", elem_id="controlnet_offer_table")
    offer = _downloads(services, "offer", "Control models to download")
    weights = gr.HTML("", elem_id="controlnet_weights_table")
    missing = _downloads(services, "weights", "Weights to download for")
    tables = [said, models, offered, weights, model, folder, offer.choice, missing.choice]
    page = _Widgets(filters, tables)
    _connect(services, page, refresh, offer, missing)
    tab.select(shown_errors(lambda *chosen: _show(services, Wanted(*chosen))), page.filters, page.tables)


def _filters(services: PageServices) -> list[Any]:
    specs: list[Any] = _specs(services)
    with gr.Row():
        words = not_saved(
            gr.Textbox("", label="Search", placeholder="part of a name or licence", elem_id="controlnet_models_search")
        )
        kind = not_saved(gr.Dropdown(kinds(), value=ANY, label="Kind", elem_id="controlnet_models_kind"))
        types = type_names(specs)
        chosen = not_saved(gr.Dropdown(types, value=ALL, label="Control type", elem_id="controlnet_models_type"))
        fitting = not_saved(
            gr.Checkbox(False, label="Only what fits the checkpoint", elem_id="controlnet_models_fitting")
        )
    return [words, kind, chosen, fitting]


def _one_file(services: PageServices) -> Any:
    """A file's place, to be copied, and its sum."""
    with gr.Row():
        model = not_saved(gr.Dropdown([], label="Model file", elem_id="controlnet_models_choice"))
        path = not_saved(
            gr.Textbox("", label="Path", interactive=False, show_copy_button=True, elem_id="controlnet_models_path")
        )
        compute = gr.Button("Compute sha256", elem_id="controlnet_models_sha256")
        digest = not_saved(gr.Textbox("", label="sha256", interactive=False, elem_id="controlnet_models_digest"))
    model.change(shown_errors(lambda name: (_path(services, name), "")), [model], [path, digest], **QUICK)
    compute.click(
        lambda name, progress=gr.Progress(): _sha256(services, name, progress),  # noqa: B008 (gradio's way)
        [model],
        [digest],
    )
    return model


def _folders(services: PageServices) -> Any:
    """The folders in which files are looked for, and a button that opens one."""
    with gr.Row():
        folder = not_saved(gr.Dropdown([], label="Folders that are looked into", elem_id="controlnet_models_folder"))
        button = gr.Button("Open folder", elem_id="controlnet_models_open_folder")
    answer = gr.HTML("", elem_id="controlnet_models_folder_answer")

    def opened(chosen: str | None, request: gr.Request) -> str:
        client = getattr(getattr(request, "client", None), "host", "")
        return open_folder(chosen or "", _known_folders(services), str(client))

    button.click(opened, [folder], [answer], **QUICK)
    return folder


@dataclass(frozen=True)
class _Downloads:
    choice: Any
    start: Any
    stop: Any
    state: Any


def _downloads(services: PageServices, name: str, label: str) -> _Downloads:
    shown = name == "weights" or services.model_files is not None
    with gr.Row():
        choice = not_saved(gr.Dropdown([], label=label, visible=shown, elem_id=f"controlnet_{name}_choice"))
        start = gr.Button("Download", visible=shown, elem_id=f"controlnet_{name}_download")
        stop = gr.Button("Stop", visible=shown, elem_id=f"controlnet_{name}_stop")
    return _Downloads(choice, start, stop, gr.HTML("", elem_id=f"controlnet_{name}_state"))


def _connect(services: PageServices, page: _Widgets, refresh: Any, offer: _Downloads, missing: _Downloads) -> None:
    show = shown_errors(lambda *chosen: _show(services, Wanted(*chosen)))

    def again(*chosen: Any) -> list[Any]:
        services.library.refresh()
        return _show(services, Wanted(*chosen))

    refresh.click(shown_errors(again), page.filters, page.tables)
    for filtering in page.filters:
        filtering.input(show, page.filters, page.tables, **QUICK)
    for downloads, bring in ((missing, _bring_weights), (offer, _bring_model)):
        downloads.start.click(
            _reporting(services, bring),
            [downloads.choice],
            [downloads.state],
        ).then(again, page.filters, page.tables)
    missing.stop.click(services.weights.cancel, None, None, **QUICK)
    if services.model_files is not None:
        offer.stop.click(services.model_files.cancel, None, None, **QUICK)


def _reporting(services: PageServices, bring: Callable[[PageServices, str, Any], str]) -> Callable[..., str]:
    """A handler of Download; how that ended stands on the page (HTML)."""

    def run(name: str | None, progress: Any = gr.Progress()) -> str:  # noqa: B008 (gradio's way)
        try:
            return (
                f'<p class="cnet-note cnet-good" role="status">{html.escape(bring(services, name or "", progress))}</p>'
            )
        except ControlNetError as error:
            return f'<p class="cnet-note cnet-bad" role="alert">{html.escape(str(error))}</p>'

    return run


def _show(services: PageServices, wanted: Wanted) -> list[Any]:
    """Values of the page's tables and lists."""
    lists = [spec.label for spec in _specs(services) if defaults.missing(services, spec)]
    names = [model.name for model in offers(services, wanted)]
    folders = [str(folder) for folder in _known_folders(services)]
    return [
        lacking(services, wanted.control_type),
        problem_table(services) + model_table(services, wanted) + skipped_table(services),
        offer_table(services, wanted),
        weight_table(services, wanted),
        gr.update(choices=services.library.names()),
        gr.update(choices=folders, value=folders[0] if folders else None),
        gr.update(choices=names, value=names[0] if names else None),
        gr.update(choices=lists, value=lists[0] if lists else None),
    ]


def _bring_model(services: PageServices, name: str, progress: Any) -> str:
    model = named(name)
    if model is None:
        raise ControlNetError("choose a model", field="model", remedy='"Look again" fills the list')
    model_offer.fetch(services, model, progress)
    return f"{name} is here, and is the file that its hub has."


def _bring_weights(services: PageServices, name: str, progress: Any) -> str:
    download_weights(services, name, progress)
    return f"{name} has its weights."


def _known_folders(services: PageServices) -> list[Path]:
    """Of control models and of preprocessors' weights, each once."""
    files = [services.model_files] if services.model_files is not None else []
    found = [folder for store in (*files, services.weights) for folder in store.folders()]
    return list(dict.fromkeys(found))


def _path(services: PageServices, name: str | None) -> str:
    return str(services.library.find(name).path) if name else ""


def _specs(services: PageServices) -> list[Any]:
    return [entry.spec for entry in services.annotators.entries]


def _sha256(services: PageServices, name: str | None, progress: Any) -> str:
    try:
        path = services.library.find(name or "").path
    except ControlNetError as error:
        raise gr.Error(str(error)) from error
    digest = _digest(path, progress)
    offered = named(path.name)
    if offered is None or not offered.sha256:
        return digest
    return f"{digest} ({'as published' if digest == offered.sha256 else 'NOT what is published for this name'})"


def _digest(path: Path, progress: Any) -> str:
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(done / size, desc=path.name)
    return digest.hexdigest()
