"""What a map is taken for without a prompt, and what helps where that is not what the prompt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import HostError
from ...core.modes import ControlMode
from ...core.panel_options import DEFAULT_PROMPT
from ...core.units import ControlNetUnit
from ...engine.metering import DECIMALS
from ...engine.services import Services
from ...measure.agreement import Attempt, best_first, shared_words, taken_for
from .prompts import caption, has_interrogator
from .similarity import prompt_similarity
from .trials import Trial, follows, run_trial

Remedy = Mapping[str, object]
"""Fields of the unit and their values."""
_OF_THE_MAP = frozenset(("preprocessor", "threshold_a", "threshold_b"))
"""Fields that make another map: the picture is to follow the one that was asked for all the same."""
_DEEP, _OUTPUTS = (7, 13), 13
"""The deep layers of SD 1.x: outputs 7 to 12 of 13, from 1/4 of the latent's size on."""


@dataclass(eq=False)
class Seen:
    """lines: for the user. report: as JSON."""

    lines: list[str] = field(default_factory=list[str])
    report: dict[str, Any] = field(default_factory=dict[str, Any])


def remedies(unit: ControlNetUnit, outputs: int) -> dict[str, Remedy]:
    """What is tried, in words and as fields of the unit, whose model has so many outputs (0: not known)."""
    weight = unit.weight
    found: dict[str, Remedy] = {
        "lower weight": {"weight": round(weight * 0.6, 2)},
        "my prompt is more important": {"control_mode": ControlMode.prompt.value},
        "later start": {"guidance_start": round(min(unit.guidance_start + 0.2, unit.guidance_end), 2)},
        "earlier end": {"guidance_end": round(max(unit.guidance_end - 0.4, unit.guidance_start), 2)},
    }
    if unit.layer_weights is None and outputs == _OUTPUTS:
        low, high = _DEEP
        weights = [weight * (0.4 if low <= place < high else 1.0) for place in range(outputs)]
        found["spare the deep layers"] = {"layer_weights": ", ".join(f"{one:g}" for one in weights)}
    return {words: fields for words, fields in found.items() if not _is_so(unit, fields)}


def look_at(services: Services, p: Any, unit: ControlNetUnit, steps: int, fields: Mapping[str, Remedy]) -> Seen:
    """Pictures under the map with an empty and with the default prompt, captioned; where that is not what the prompt
    says, the remedies in `fields` are tried. Raises StoppedError, and what stops a job.
    """
    prompt = str(p.prompt)
    seen = Seen(report={"what": "seen", "unit": unit.index, "prompt": prompt})
    alone: dict[str, Trial] = {}
    captions: dict[str, str] = {}
    for name, text in (("empty", ""), ("default", DEFAULT_PROMPT)):
        alone[name] = run_trial(p, {}, steps, prompt=text)
        try:
            captions[name] = caption(alone[name].picture)
        except HostError as error:  # the next picture would have none either
            return unsaid(unit, prompt, error.problem)
    seen.report["captions"] = captions
    asked = run_trial(p, {}, steps)
    own = _attempt("as it is", asked, asked.adherence(unit.index), prompt)
    seen.report["now"] = vars(own)
    misread = _misread(seen, prompt, captions, alone, asked)
    seen.report["misread"] = misread
    if misread:
        tried = [own]
        for words, changes in fields.items():
            values = {(unit.index, name): value for name, value in changes.items()}
            made = run_trial(p, values, steps)
            other_map = not _OF_THE_MAP.isdisjoint(changes)
            adherence = follows(services, asked, unit.index, made) if other_map else made.adherence(unit.index)
            tried.append(_attempt(words, made, adherence, prompt))
        ranked = best_first(tried)
        seen.report["remedies"] = [{**vars(one), "fields": dict(fields.get(one.remedy, {}))} for one in ranked]
        seen.lines += [_line(unit, place, one, fields.get(one.remedy, {})) for place, one in enumerate(ranked[:4], 1)]
    return seen


def unsaid(unit: ControlNetUnit, prompt: str, why: str) -> Seen:
    """What is known where no picture can be captioned."""
    return Seen(
        [f"unit {unit.index}: what the map is taken for cannot be said: {why}"],
        {"what": "seen", "unit": unit.index, "prompt": prompt, "captions": {"empty": None, "default": None},
         "misread": None},
    )  # fmt: skip


def no_captions() -> str:
    """Why no picture can be captioned, where that is known before one is made; else ""."""
    return "" if has_interrogator() else "this WebUI has no interrogator that captions"


def _misread(
    seen: Seen, prompt: str, captions: Mapping[str, str], alone: Mapping[str, Trial], asked: Trial
) -> bool | None:
    """Whether the map is taken for something else than the prompt says; None where nothing can tell."""
    unit = seen.report["unit"]
    if not prompt.strip():
        seen.lines.append(f"unit {unit}: without a prompt the map is taken for {_quoted(captions['empty'])}")
        return None
    words = [shared for text in captions.values() if (shared := shared_words(text, prompt)) is not None]
    closeness = [prompt_similarity(trial.picture, prompt) for trial in (alone["empty"], asked)]
    seen.report["similarity"] = {"empty": closeness[0], "now": closeness[1]}
    if not words:
        seen.lines.append(f"unit {unit}: the prompt names nothing that a caption could have")
        return None
    own = _captioned(asked)
    reading = taken_for(prompt, list(captions.values()), own or "")
    seen.report |= {"caption": own, "brings": list(reading.foreign), "lost": list(reading.lost)}
    nothing, another = max(words) == 0.0, bool(reading.foreign and reading.lost)
    taken = f"without a prompt the map is taken for {_quoted(captions['empty'])}"
    ends = ["which is not what the prompt says"] if nothing else []
    if another:
        ends.append(f"it brings {_listed(reading.foreign)} where the prompt says {_listed(reading.lost)}")
    end = "; ".join(ends) or "which agrees with the prompt"
    seen.lines.append(f"unit {unit}: {taken}, with the default prompt for {_quoted(captions['default'])}: {end}")
    return nothing or another


def _attempt(words: str, trial: Trial, adherence: float, prompt: str) -> Attempt:
    agreement = prompt_similarity(trial.picture, prompt)
    if agreement is None:
        text = _captioned(trial)
        agreement = None if text is None else shared_words(text, prompt)
    return Attempt(words, round(adherence, DECIMALS), None if agreement is None else round(agreement, DECIMALS))


def _captioned(trial: Trial) -> str | None:
    try:
        return caption(trial.picture)
    except HostError:
        return None


def _line(unit: ControlNetUnit, place: int, one: Attempt, fields: Remedy) -> str:
    agreement = "unknown" if one.agreement is None else f"{one.agreement:.2f}"
    settings = "; ".join(f"{name} = {value}" for name, value in fields.items())
    what = f"{one.remedy}{f' [{settings}]' if settings else ''}"
    how = f"adherence {one.adherence:.2f}, agreement with the prompt {agreement}"
    return f"unit {unit.index}: remedy {place}: {what}: {how}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _is_so(unit: ControlNetUnit, fields: Remedy) -> bool:
    """The unit has these values already."""
    return all(getattr(unit, name) == (ControlMode(value) if name == "control_mode" else value)
               for name, value in fields.items())  # fmt: skip
