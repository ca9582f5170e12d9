"""The page "Models": every control model and every preprocessor's weights, whether they are there and fit."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError
from ..core.model_catalogue import named
from ..engine import defaults
from ..engine.library import ModelEntry
from ..engine.services import PageServices
from ..engine.weights import human_size
from . import model_offer
from .events import QUICK, download_weights, shown_errors
from .gradio_compat import not_saved

_BLOCK = 1 << 20
_MODEL_HEAD = ("Model", "Kind", "Made for", "Size", "Folder", "With this checkpoint")
_SKIPPED_HEAD = ("File or folder", "Why")
_WEIGHT_HEAD = ("Preprocessor", "File", "Size", "Licence", "Where")


def build(services: PageServices) -> None:
    """Makes the page's widgets; the tables are filled when they are asked for, since all files are looked into."""
    refresh = gr.Button("Show what is here", variant="primary", elem_id="controlnet_models_refresh")
    models = gr.HTML("", elem_id="controlnet_models_table")
    with gr.Row():
        model = not_saved(gr.Dropdown([], label="Model file", elem_id="controlnet_models_choice"))
        path = not_saved(
            gr.Textbox("", label="Path", interactive=False, show_copy_button=True, elem_id="controlnet_models_path")
        )
        compute = gr.Button("Compute sha256", elem_id="controlnet_models_sha256")
        digest = not_saved(gr.Textbox("", label="sha256", interactive=False, elem_id="controlnet_models_digest"))
    with gr.Row():
        offer = not_saved(gr.Dropdown([], label="Control models to download", elem_id="controlnet_offer_choice"))
        fetch = gr.Button("Download", elem_id="controlnet_offer_download")
        halt = gr.Button("Stop", elem_id="controlnet_offer_stop", visible=services.model_files is not None)
    offer_state = gr.HTML("", elem_id="controlnet_offer_state")
    weights = gr.HTML("", elem_id="controlnet_weights_table")
    with gr.Row():
        missing = not_saved(gr.Dropdown([], label="Weights to download for", elem_id="controlnet_weights_choice"))
        download = gr.Button("Download", elem_id="controlnet_weights_download")
        stop = gr.Button("Stop", elem_id="controlnet_weights_stop")
    state = gr.HTML("", elem_id="controlnet_weights_state")

    def show() -> list[Any]:
        services.library.refresh()
        lacking = [spec.label for spec in _specs(services) if defaults.missing(services, spec)]
        offers = model_offer.choices(services)
        return [
            problem_table(services) + model_table(services) + skipped_table(services),
            gr.update(choices=services.library.names()),
            weight_table(services),
            gr.update(choices=lacking, value=lacking[0] if lacking else None),
            gr.update(choices=offers, value=offers[0] if offers else None),
        ]

    model.change(shown_errors(lambda name: (_path(services, name), "")), [model], [path, digest], **QUICK)
    tables = [models, model, weights, missing, offer]
    refresh.click(shown_errors(show), None, tables)
    compute.click(
        lambda name, progress=gr.Progress(): _sha256(services, name, progress),  # noqa: B008 (gradio's way)
        [model],
        [digest],
    )
    download.click(
        lambda name, progress=gr.Progress(): _bring(services, name or "", progress),  # noqa: B008 (gradio's way)
        [missing],
        [state],
    ).then(show, None, tables)
    stop.click(services.weights.cancel, None, None, **QUICK)
    fetch.click(
        lambda name, progress=gr.Progress(): _bring_model(services, name or "", progress),  # noqa: B008 (gradio's way)
        [offer],
        [offer_state],
    ).then(show, None, tables)
    if services.model_files is not None:
        halt.click(services.model_files.cancel, None, None, **QUICK)


def _bring_model(services: PageServices, name: str, progress: Any) -> str:
    """Downloads a control model; how that ended stands on the page (HTML)."""
    model = named(name)
    if model is None:
        return '<p class="cnet-note cnet-bad" role="alert">Choose a model; "Show what is here" fills the list.</p>'
    try:
        model_offer.fetch(services, model, progress)
    except ControlNetError as error:
        return f'<p class="cnet-note cnet-bad" role="alert">{html.escape(str(error))}</p>'
    return f'<p class="cnet-note cnet-good" role="status">{html.escape(name)} is here.</p>'


def _bring(services: PageServices, name: str, progress: Any) -> str:
    """Downloads; what went wrong stands on the page (HTML)."""
    try:
        return download_weights(services, name, progress)
    except ControlNetError as error:
        return f'<p class="cnet-note cnet-bad" role="alert">{html.escape(str(error))}</p>'


def model_table(services: PageServices) -> str:
    """All control models with what their files say (HTML)."""
    entries = services.library.entries()
    return _table("Control models", _MODEL_HEAD, [_model_row(services, entry) for entry in entries])


def problem_table(services: PageServices) -> str:
    """Settings with wrong values (HTML); "" where there is none."""
    rows = [(problem,) for problem in services.setting_problems()]
    return _table("Settings", ("What is wrong",), rows) if rows else ""


def skipped_table(services: PageServices) -> str:
    """What lies in the model folders and could not be listed, with the reasons (HTML); "" where there is nothing."""
    rows = [(skipped.path, skipped.reason) for skipped in services.library.skipped]
    return _table("Not listed", _SKIPPED_HEAD, rows) if rows else ""


def weight_table(services: PageServices) -> str:
    """The weights of all preprocessors that can run here (HTML)."""
    rows = [
        (spec.label, file.name, human_size(file.size), file.licence, str(services.weights.path(file) or "missing"))
        for spec in _specs(services)
        for file in getattr(spec, "weights", ())
    ]
    return _table("Weights of preprocessors", _WEIGHT_HEAD, rows)


def _model_row(services: PageServices, entry: ModelEntry) -> tuple[str, ...]:
    facts = services.facts.read(entry.path)
    try:
        fits = facts.mismatch(services.base_model()) or "works"
    except ControlNetError as error:
        fits = facts.problem or error.problem
    made_for = "" if facts.sheet is None else facts.sheet.made_for
    return entry.name, facts.kind, made_for, human_size(facts.size), str(entry.path.parent), fits


def _path(services: PageServices, name: str | None) -> str:
    """Where the file is: to be copied, since opening a folder would do so on the server's screen."""
    return str(services.library.find(name).path) if name else ""


def _specs(services: PageServices) -> list[Any]:
    return [entry.spec for entry in services.annotators.entries]


def _sha256(services: PageServices, name: str | None, progress: Any) -> str:
    try:
        path = services.library.find(name or "").path
    except ControlNetError as error:
        raise gr.Error(str(error)) from error
    return _digest(path, progress)


def _digest(path: Path, progress: Any) -> str:
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(done / size, desc=path.name)
    return digest.hexdigest()


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "<tr>" + "".join(f"<{tag}{scope}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows) or f'<tr><td colspan="{len(head)}">none</td></tr>'
    return (
        f'<div class="cnet-table"><table><caption>{html.escape(title)} ({len(rows)})</caption>'
        f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table></div>"
    )
