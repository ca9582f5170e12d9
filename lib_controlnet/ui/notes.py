"""What a unit says beforehand: whether model and checkpoint fit, what is missing, and what the unit will cost."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from ..core.control_types import ALL, NO_MODEL, UNION_TYPES
from ..core.errors import ControlNetError
from ..core.modes import ControlMode, UnionType
from ..core.units import ControlNetUnit
from ..engine import defaults
from ..engine.defaults import model_facts
from ..engine.facts import Facts
from ..engine.look import reading
from ..engine.services import PageServices
from ..engine.weights import human_size


def unit_notes(
    services: PageServices,
    preprocessor: str,
    model: str,
    start: float,
    end: float,
    mode: str,
    control_type: str,
    enabled: bool = False,
) -> tuple[str, Any, Any]:
    """Text (HTML), update of the download button, update of the union type's list."""
    spec = _spec(services, preprocessor, model)
    lines = [*_model_lines(services, model, start, end, mode), *_choice_lines(services, spec, model, enabled)]
    missing = [] if spec is None else defaults.missing(services, spec)
    if spec is not None and missing:
        lines.append(("warn", _lacking(services, spec, missing, control_type)))
    text = "".join(f'<p class="cnet-note cnet-{kind}">{html.escape(line)}.</p>' for kind, line in lines)
    size = human_size(sum(file.size for file in missing))
    download = gr.update(visible=bool(missing), value=f"Download {size}")
    facts = model_facts(services, model)
    return text, download, _union_update(facts, control_type)


def run_by(services: PageServices, preprocessor: str, model: str) -> str:
    """The preprocessor that is run, where the chosen one stands for the one that the model needs."""
    if not services.preprocess.entry(preprocessor).spec.by_model or model in ("", NO_MODEL):
        return preprocessor
    return reading(services, ControlNetUnit(preprocessor=preprocessor, model=model))


def _spec(services: PageServices, preprocessor: str, model: str) -> Any | None:
    try:
        return services.preprocess.entry(run_by(services, preprocessor, model)).spec
    except ControlNetError:
        return None  # running it says what is wrong with it


def _choice_lines(services: PageServices, spec: Any | None, model: str, enabled: bool) -> list[tuple[str, str]]:
    """What stands in the way of a unit that is on, before Generate says it."""
    unable = "" if spec is None else defaults.unable(services, spec)
    if unable:
        return [("bad", f"{spec.label} does not work with this checkpoint: {unable}")]  # type: ignore[union-attr]
    if not enabled or model not in ("", NO_MODEL) or (spec is not None and spec.model_free):
        return []
    return [("warn", "The unit is on and has no model: choose one, or it stops the generation")]


def _lacking(services: PageServices, spec: Any, missing: list[Any], control_type: str) -> str:
    names = ", ".join(f"{file.name} ({human_size(file.size)}, {file.licence})" for file in missing)
    equals = [f'"{one.label}"' for one in defaults.equals(services, control_type, spec)]
    instead = f". {' and '.join(equals)} finds {spec.finds} too and is here" if equals else ""
    return f'The preprocessor "{spec.label}" lacks {names}{instead}'


def _union_update(facts: Facts | None, control_type: str) -> Any:
    """The union type is a question of union models only; the control type answers it where it can."""
    if facts is None or facts.sheet is None or not facts.sheet.union_kinds:
        return gr.update(visible=False, value=UnionType.unknown.value)
    known = UNION_TYPES.get(control_type)
    return gr.update(visible=True) if known is None else gr.update(visible=True, value=known.value)


def _model_lines(services: PageServices, model: str, start: float, end: float, mode: str) -> list[tuple[str, str]]:
    if model in ("", NO_MODEL):
        return []
    facts = model_facts(services, model)
    if facts is None:
        return [("bad", f'The model "{model}" is not here; put its file into a model folder and refresh the list')]
    try:
        base = services.base_model()
    except ControlNetError as error:
        if facts.problem:
            return [("bad", f"This file does not work: {facts.problem}")]
        return [
            ("plain", f"{_described(facts)}. Whether it fits is known once a checkpoint is loaded ({error.problem})")
        ]
    mismatch = facts.mismatch(base)
    if mismatch:
        remedy = "" if facts.problem else f"; choose a model for {base.kind}, or another checkpoint"
        return [("bad", f"This model does not work with {base.title}: {mismatch}{remedy}")]
    return [("good", f"{_described(facts)}. Fits {base.title}. {_cost(facts, base.kind, start, end, mode)}")]


def _described(facts: Facts) -> str:
    made_for = f" for {facts.sheet.made_for}" if facts.sheet is not None else ""
    kind = facts.kind.replace(" for Stable Diffusion", "") if made_for else facts.kind
    return f"{kind[:1].upper()}{kind[1:]}{made_for}, {human_size(facts.size)}"


def _cost(facts: Facts, kind: str, start: float, end: float, mode: str) -> str:
    """What the unit adds: memory is the file's, time is the network's share of a step while it acts."""
    usual = next(iter(facts.shares.values()), 0.0)  # for checkpoints of no published kind
    share = facts.shares.get(kind, usual) * (0.5 if mode == ControlMode.control.value else 1.0) * max(end - start, 0.0)
    time = f"about {share:.0%}" if share >= 0.005 else "next to nothing"
    return f"Adds {time} to the time of the steps and {human_size(facts.size)} of memory"


def absent_preprocessors(services: PageServices, control_type: str) -> str:
    """The preprocessors of a type that cannot run here, with their reasons, folded (HTML)."""
    disabled = getattr(services.annotators, "disabled", {})
    rows = [
        f"<li><b>{html.escape(_label(item))}</b>: {html.escape(item.reason)}</li>"
        for item in disabled.values()
        if control_type != ALL and control_type in _types(item)
    ]
    if not rows:
        return ""
    count = "One preprocessor" if len(rows) == 1 else f"{len(rows)} preprocessors"
    summary = f"<summary>{count} of this type cannot run here</summary>"
    return f'<details class="cnet-note">{summary}<ul>{"".join(rows)}</ul></details>'


def _types(item: Any) -> tuple[str, ...]:
    return tuple(getattr(item.spec, "control_types", ()) or getattr(item, "control_types", ()))


def _label(item: Any) -> str:
    return getattr(item.spec, "label", "") or item.id
