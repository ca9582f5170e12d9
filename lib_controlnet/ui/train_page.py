"""The page "Train": a folder of pictures becomes a control model, and one watches it converge."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.errors import ControlNetError
from ..engine.services import PageServices
from .events import QUICK, shown_errors
from .gradio_compat import not_saved, picture_output

_FORMATS = (
    ("fill50k", "the paper's: prompt.json, source, target"),
    ("pictures", "plain pictures with .txt captions; the preprocessor makes the maps"),
    ("diffusers", "diffusers': image, conditioning_image, text"),
    ("kohya", "kohya's: pictures with captions, and a folder of maps"),
    ("webdataset", "WebDataset shards"),
)
_CAPTIONS = {"text files": "files", "interrogator, where files lack": "interrogator", "none": "none"}
_KINDS = {
    "ControlNet": "controlnet",
    "Control-LoRA": "control_lora",
    "ControlLLLite": "lllite",
    "T2I-Adapter": "t2i_adapter",
    "ControlNet-XS": "controlnet_xs",
    "CtrLoRA": "ctrlora",
}
_WIDTH, _HEIGHT, _MARGIN = 720, 150, 24


@dataclass(frozen=True)
class TrainDesk:
    """What the page needs besides the services. `jobs`: the training layer's TrainingJobs. `checkpoint`: path of the
    loaded checkpoint. `install(path) -> name`: puts a finished model among the control models. `lock`: the host's
    queue. `unit`: the components "enabled" and "model" of txt2img's first unit, where there are such."""

    jobs: Any
    checkpoint: Callable[[], str]
    install: Callable[[str], str]
    lock: AbstractContextManager[Any]
    unit: tuple[Any, ...] = ()


def build(services: PageServices, desk: TrainDesk) -> None:
    """Makes the page's widgets at the place of the call."""
    fields = _fields(services)
    with gr.Row():
        check = gr.Button("Check data", elem_id="controlnet_train_check")
        start = gr.Button("Start", variant="primary", elem_id="controlnet_train_start")
        go_on = gr.Button("Go on", elem_id="controlnet_train_resume")
        stop = gr.Button("Pause (saves all)", elem_id="controlnet_train_stop")
        use = gr.Button("Use in unit 0", elem_id="controlnet_train_use")
        refresh = gr.Button("Refresh", elem_id="controlnet_train_refresh")
    state = gr.HTML(status_html(desk.jobs.status()), elem_id="controlnet_train_state")
    with gr.Row():
        sheet = picture_output("Contact sheet", elem_id="controlnet_train_sheet")
        grid = picture_output("Condition, reconstruction, sample", elem_id="controlnet_train_grid")

    def look() -> list[Any]:
        status = desk.jobs.status()
        return [status_html(status), status.grid or None]

    def run(resume: bool) -> Callable[..., list[Any]]:
        def call(*values: Any) -> list[Any]:
            _check_allowed(services)
            with desk.lock:
                desk.jobs.start(tables_from(values, desk.checkpoint()), resume=resume)
            return look()

        return call

    def check_data(*values: Any) -> list[Any]:
        _check_allowed(services)
        report, picture = desk.jobs.check(tables_from(values, desk.checkpoint()))
        return [report_html(report.as_json()), picture]

    def pause() -> list[Any]:
        _check_allowed(services)
        desk.jobs.stop()
        return look()

    check.click(shown_errors(check_data), fields, [state, sheet])
    start.click(shown_errors(run(False)), fields, [state, grid])
    go_on.click(shown_errors(run(True)), fields, [state, grid])
    stop.click(shown_errors(pause), None, [state, grid], **QUICK)
    refresh.click(look, None, [state, grid], **QUICK)
    if desk.unit:
        use.click(shown_errors(lambda: _use(services, desk)), None, list(desk.unit))


def _fields(services: PageServices) -> list[Any]:
    """The settings' widgets, in the order of `tables_from`."""

    def text(label: str, name: str, value: str = "", **options: Any) -> Any:
        return not_saved(gr.Textbox(value, label=label, elem_id=f"controlnet_train_{name}", **options))

    def number(label: str, name: str, value: float, whole: bool = True) -> Any:
        precision = 0 if whole else None
        return not_saved(gr.Number(value, label=label, precision=precision, elem_id=f"controlnet_train_{name}"))

    preprocessors = [entry.spec.id for entry in services.annotators.entries]
    with gr.Row():
        folder = text("Folder of the data", "folder", placeholder="a folder on the server")
        kinds = [f"{name}: {what}" for name, what in _FORMATS]
        layout = not_saved(gr.Dropdown(kinds, value=kinds[0], label="Layout", elem_id="controlnet_train_format"))
        maps = text("Folder of the maps (kohya)", "maps")
        captions = not_saved(
            gr.Dropdown(list(_CAPTIONS), value=next(iter(_CAPTIONS)), label="Captions",
                        elem_id="controlnet_train_captions")
        )  # fmt: skip
        preprocessor = not_saved(
            gr.Dropdown(preprocessors, value="canny", label="Preprocessor", elem_id="controlnet_train_preprocessor")
        )
    with gr.Row():
        name = text("Name of the model", "name", "my_control")
        out = text("Output folder", "out", "train_output/my_control")
        first = text("Go on from a control of this kind (else: a new one)", "from")
        kind = not_saved(
            gr.Dropdown(
                list(_KINDS), value=next(iter(_KINDS)), label="Kind of control", elem_id="controlnet_train_kind"
            )
        )
        rank = number("Rank (of Control-LoRA, LLLite, CtrLoRA)", "rank", 64)
    with gr.Row():
        resolution = number("Resolution", "resolution", 512)
        steps = number("Steps", "steps", 4000)
        batch = number("Batch", "batch", 4)
        accumulation = number("Gradient accumulation", "accumulation", 1)
        rate = number("Learning rate", "rate", 1e-5, whole=False)
        dropped = number("Share of empty prompts", "empty", 0.5, whole=False)
        every = number("Samples every (steps)", "every", 300)
        held_out = number("Held-out pairs", "held_out", 8)
    with gr.Row():
        precisions = ["no", "fp16", "bf16"]
        precision = not_saved(gr.Dropdown(precisions, value="fp16", label="Mixed precision"))
        optimizer = not_saved(gr.Dropdown(["adamw", "adamw8bit"], value="adamw", label="Optimizer"))
        saving = not_saved(gr.Checkbox(False, label="Gradient checkpointing (less memory)"))
        middle = not_saved(gr.Checkbox(False, label="Middle connection only"))
        unlocked = not_saved(gr.Checkbox(False, label="Train the decoder too (sd_locked off)"))
    return [
        folder, layout, maps, preprocessor, name, out, first, resolution, steps, batch, accumulation, rate, dropped,
        every, held_out, precision, optimizer, saving, middle, unlocked, captions, kind, rank,
    ]  # fmt: skip


def tables_from(values: Any, checkpoint: str) -> dict[str, dict[str, Any]]:
    """A training's configuration from the page's values."""
    (folder, layout, maps, preprocessor, name, out, first, resolution, steps, batch, accumulation, rate, dropped,
     every, held_out, precision, optimizer, saving, middle, unlocked, captions, kind, rank) = values  # fmt: skip
    tables: dict[str, dict[str, Any]] = {
        "base": {"checkpoint": checkpoint},
        "control": {"kind": _KINDS[kind], "rank": int(rank)},
        "data": {
            "folder": folder,
            "format": layout.partition(":")[0],
            "preprocessor": preprocessor,
            "resolution": int(resolution),
            "held_out": int(held_out),
            "captions": _CAPTIONS[captions],
        },
        "train": {
            "steps": int(steps),
            "batch_size": int(batch),
            "accumulation": int(accumulation),
            "learning_rate": float(rate),
            "empty_prompts": float(dropped),
            "precision": precision,
            "optimizer": optimizer,
            "checkpointing": saving,
            "only_mid_control": middle,
            "sd_locked": not unlocked,
        },
        "samples": {"every": int(every)},
        "output": {"folder": out, "name": name},
    }
    if first:
        tables["base"]["start"] = first
    if maps:
        tables["data"]["control_folder"] = maps
    return tables


def _check_allowed(services: PageServices) -> None:
    if not services.setting("controlnet_allow_training", False):
        raise ControlNetError(
            "training is off", field="train", remedy="turn on Settings > ControlNet > Allow training, and apply"
        )


def _use(services: PageServices, desk: TrainDesk) -> list[Any]:
    """Values of unit 0's "enabled" and "model": the trained model, from now on among the control models."""
    model = desk.jobs.status().model
    if not model:
        raise ControlNetError("there is no trained model yet", field="train", remedy="train, or wait for a save")
    name = desk.install(model)
    return [True, gr.update(choices=services.library.names(), value=name)]


def report_html(report: dict[str, Any]) -> str:
    """The check of the data in words."""
    sizes = ", ".join(f"{count} of {size}" for size, count in report["sizes"].items())
    lines = [f"{report['pairs']} pairs, {report['held_out']} held out, {report['captions']} captions; {sizes}"]
    lines += [f"Problem: {problem}" for problem in report["problems"]]
    lines += [f"Note: {warning}" for warning in report["warnings"]]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def status_html(status: Any) -> str:
    """State, figures and curves of a training."""
    if status.state == "idle":
        return "<p>No training was started.</p>"
    parts = [f"{status.name}: {status.state}, step {status.step} of {status.steps}"]
    if status.captions is not None:
        parts.append("captions written: {} of {}".format(*status.captions))
    if status.loss is not None:
        parts.append(f"loss {status.loss:.5f}")
    if status.steps_per_second:
        parts.append(f"{status.steps_per_second:.2f} steps/s")
    if status.seconds_left:
        parts.append(f"{status.seconds_left / 60:.0f} min left")
    if status.adherence is not None:
        beside = "" if status.mismatched is None else f" ({status.mismatched:.3f} with another picture's map)"
        parts.append(f"adherence {status.adherence:.3f}{beside}")
    if status.convergence is not None:
        parts.append(f"sudden convergence at step {status.convergence}")
    # The page's script asks again while it reads "running"; the time makes each answer another one.
    lines = [f'<p data-state="{status.state}" data-seen="{time.time():.1f}">{html.escape("; ".join(parts))}</p>']
    if status.error:
        lines.append(f"<p class='error'>{html.escape(status.error)}</p>")
    lines.append(curve_svg("loss", status.losses) + curve_svg("adherence", status.curve))
    return "".join(lines)


def curve_svg(title: str, points: Any) -> str:
    """A curve of (step, value) as SVG with its ends labelled; empty below two points."""
    if len(points) < 2:
        return ""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    low, high = min(ys), max(ys)
    across = (_WIDTH - 2 * _MARGIN) / max(xs[-1] - xs[0], 1)
    down = (_HEIGHT - 2 * _MARGIN) / ((high - low) or 1)
    line = " ".join(
        f"{_MARGIN + (x - xs[0]) * across:.1f},{_HEIGHT - _MARGIN - (y - low) * down:.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
    label = f"{title}: {ys[0]:.4g} at step {xs[0]}, {ys[-1]:.4g} at step {xs[-1]}, {low:.4g} to {high:.4g}"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="max-width: {_WIDTH}px">'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        f'<text x="{_MARGIN}" y="16" font-size="12" fill="currentColor">{label}</text></svg>'
    )
