"""What a job finds out before it makes its pictures: the weight that reaches a target, floor and ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...core.errors import UnitError
from ...core.images import Pixels
from ...core.resize import fit_map
from ...core.step import Pass
from ...core.study import Question, Study
from ...core.units import ControlNetUnit
from ...engine.defaults import model_facts
from ...engine.effect import PassEffect
from ...engine.generation import UnitRun
from ...engine.metering import rounded
from ...engine.services import PageServices, Services
from ...engine.session import ControlSession
from ...engine.softer import softer
from ...measure.curve import curve_picture
from ...measure.search import CLOSE, MOST_JOBS, Search, find_weight
from .axes import AXES
from .metering import MEASURED, JobMeter, hand_over, into_answer, measure_run
from .misread import look_at, no_captions, remedies, unsaid
from .notes import tell
from .similarity import prompt_similarity
from .trials import TRIAL, WITHOUT, StoppedError, Trial, run_trial, settle_seed
from .vae import through_vae

_SHORTEST = (0.25, 0.5, 0.75)
"""Ends of a shorter range that are tried."""


@dataclass(eq=False)
class Studied:
    """What came of a study. lines: for the user. report: as JSON. floors: adherence without control, by unit."""

    study: Study
    lines: list[str] = field(default_factory=list[str])
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    floors: dict[int, float] = field(default_factory=dict[int, float])
    pictures: list[Pixels] = field(default_factory=list[Pixels])


class Studies:
    """Of one WebUI. Requests of its page come again with every job until the page takes them away: each counts once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answered: list[str] = []

    def study(self, p: Any, study: Study | None, units: Sequence[ControlNetUnit]) -> Studied | None:
        """Answers the job's question with trials of it, and lets the job itself have the answer.

        None where nothing is asked, or the job is a trial itself. Raises what stops a job.
        """
        if study is None or getattr(p, TRIAL, False) or (study.nonce and study.nonce in self._answered):
            return None
        self._answered = [*self._answered[-63:], *([study.nonce] if study.nonce else [])]
        enabled = [unit.index for unit in units if unit.enabled]
        if not enabled or (study.what is not Question.bounds and study.unit not in enabled):
            raise UnitError(
                "the unit that is asked about takes no part in the job", unit=study.unit, field="enabled",
                found=f"enabled: {', '.join(map(str, enabled)) or 'none'}", remedy="enable it",
            )  # fmt: skip
        settle_seed(p)
        setattr(p, MEASURED, True)
        studied = Studied(study)
        try:
            if study.what is Question.weight:
                _find_weight(p, study, studied)
            elif study.what is Question.seen:
                _look(self._services, p, study, studied, next(unit for unit in units if unit.index == study.unit))
            else:
                _find_floors(p, study, studied, enabled)
        except StoppedError:
            studied.lines.append(f"unit {study.unit}: stopped before it was found out")
            studied.report["stopped"] = True
        return studied


def _find_floors(p: Any, study: Study, studied: Studied, enabled: Sequence[int]) -> None:
    """The same seed without any unit; each is measured against its own map."""
    _expect(1, "ControlNet: the same picture without control")
    changes = {(unit, name): value for unit in enabled for name, value in WITHOUT.items()}
    trial = run_trial(p, changes, study.steps)
    studied.floors = {
        unit: float(report["adherence"]) for unit, report in trial.units.items() if report.get("adherence") is not None
    }


def _look(services: Services, p: Any, study: Study, studied: Studied, unit: ControlNetUnit) -> None:
    """What the map is taken for, and what helps."""
    why = no_captions()
    if why:  # said without a picture
        seen = unsaid(unit, str(p.prompt), why)
        studied.lines += seen.lines
        studied.report |= seen.report
        return
    facts = model_facts(services, unit.model) if isinstance(services, PageServices) else None
    tried = remedies(unit, 0 if facts is None or facts.sheet is None else facts.sheet.outputs)
    if isinstance(services, PageServices):
        tried |= {one.words: one.fields for one in softer(services, unit)}
    _expect(len(tried) + 3, "ControlNet: what does it see?")
    seen = look_at(services, p, unit, study.steps, tried)
    studied.lines += seen.lines
    studied.report |= seen.report


def _find_weight(p: Any, study: Study, studied: Studied) -> None:
    similar: dict[float, float] = {}
    most = MOST_JOBS - (len(_SHORTEST) if study.shorten else 0)
    _expect(most, "ControlNet: looking for the weight")

    def trial(weight: float, **more: object) -> Trial:
        values = {**WITHOUT, "weight": weight, **more}
        return run_trial(p, {(study.unit, name): value for name, value in values.items()}, study.steps)

    def adherence(weight: float) -> float:
        made = trial(weight)
        likeness = prompt_similarity(made.picture, str(p.prompt))
        if likeness is not None:
            similar[weight] = likeness
        return made.adherence(study.unit)

    found = find_weight(adherence, study.target, highest=study.highest, most=most)
    values: dict[str, object] = {**WITHOUT, "weight": found.weight}
    end = _least_end(study, found, trial) if study.shorten and found.reached and found.weight else None
    if end is not None:
        values["guidance_end"] = end
    setattr(p, AXES, {**getattr(p, AXES, {}), **{(study.unit, name): value for name, value in values.items()}})
    if found.floor is not None:
        studied.floors[study.unit] = found.floor
    _tell(study, studied, found, similar, end)


def _least_end(study: Study, found: Search, trial: Any) -> float | None:
    """The first of a few ends of the range with which the target is reached still."""
    for end in _SHORTEST:
        if trial(found.weight, guidance_end=end).adherence(study.unit) >= study.target - CLOSE:
            return end
    return None


def _tell(study: Study, studied: Studied, found: Search, similar: dict[float, float], end: float | None) -> None:
    words = f"weight {found.weight:g} {_reached(study, found)} adherence {study.target:g} (it has {found.adherence:.3f}"
    words += f", in {len(found.curve)} jobs on one seed)"
    if end is not None:
        words += f"; ending control step {end:g} is enough"
    if not similar:
        words += "; similarity to the prompt was not taken: no CLIP is in memory (Interrogate CLIP brings it)"
    studied.lines.append(f"unit {study.unit}: {words}")
    studied.report |= {
        "what": study.what.value, "unit": study.unit, "target": study.target, "weight": found.weight,
        "adherence": found.adherence, "reached": found.reached, "floor": found.floor, "guidance_end": end,
        "curve": [[point.weight, point.adherence] for point in found.curve],
        "similarity": [[weight, round(similar[weight], 4)] for weight in sorted(similar)],
    }  # fmt: skip
    studied.pictures.append(
        curve_picture(
            [(point.weight, point.adherence) for point in found.curve], study.target, found.weight,
            [(weight, similar[weight]) for weight in sorted(similar)], f"unit {study.unit}: weight {found.weight:g}",
        )
    )  # fmt: skip


def _reached(study: Study, found: Search) -> str:
    """In words: what is within the tolerance has not reached the target itself."""
    if not found.reached:
        return "comes nearest: none reaches"
    near = found.adherence < study.target
    return f"is the least tried that {f'comes within {CLOSE:g} of' if near else 'reaches'}"


def _expect(jobs: int, text: str) -> None:
    """The host's progress bar counts the trials too."""
    from modules import shared

    state = shared.state
    state.textinfo = text
    state.job_count = max(int(state.job_count), 1) + jobs


def tell_all(
    services: Services,
    session: ControlSession,
    meter: JobMeter | None,
    effects: Sequence[PassEffect],
    studied: Studied | None,
    p: Any,
    processed: Any,
) -> None:
    """What was measured and found out, under the pictures and in the API's answer."""
    hand_over(meter, effects, session, p, processed, _bounds_of(services, studied, p))
    _tell_study(studied, p, processed)


def _bounds_of(services: Services, studied: Studied | None, p: Any) -> Callable[[UnitRun], Mapping[str, Any]]:
    """Floor and ceiling of a unit for the job's result, where the job was asked for them."""

    def bounds(run: UnitRun) -> Mapping[str, Any]:
        floor = None if studied is None else studied.floors.get(run.unit.index)
        if studied is None or (floor is None and studied.study.what is not Question.bounds):
            return {}
        return {"floor": rounded(floor), **_ceiling(services, p, run)}

    return bounds


def _ceiling(services: Services, p: Any, run: UnitRun) -> dict[str, Any]:
    """What the source picture itself has after the VAE, which is all that a picture can have."""
    from modules import shared

    hints = run.hints.get(Pass.hires) or run.hints.get(Pass.base)
    source = run.unit.image if run.unit.image is not None else _first(p)
    if run.spec.reads_map or source is None or not hints:
        return {"ceiling": None, "why_no_ceiling": "no ceiling: the picture from which the map was made is not known"}
    width, height = hints[0].size
    fitted = np.clip(fit_map(np.ascontiguousarray(source[:, :, :3]), width, height, run.resize_mode), 0, 255)
    pixels = torch.as_tensor(np.ascontiguousarray(fitted), dtype=torch.float32).permute(2, 0, 1)[None] / 255
    made = through_vae(shared.sd_model, int(p.seed), pixels)
    image = (made[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    return {"ceiling": rounded(measure_run(services, p, run, image, 0).score.adherence)}


def _first(p: Any) -> Pixels | None:
    """The first picture of img2img."""
    pictures = [image for image in getattr(p, "init_images", None) or () if image is not None]
    return np.asarray(pictures[0].convert("RGB"), np.uint8) if pictures else None


def _tell_study(studied: Studied | None, p: Any, processed: Any) -> None:
    """The answer under the pictures, in the API's `info.controlnet_study`, and its drawings in the gallery."""
    if studied is None:
        return
    for line in studied.lines:
        tell(p, processed, f"ControlNet {line}")
    if studied.report:
        into_answer(processed, "controlnet_study", studied.report)
    processed.images.extend(Image.fromarray(np.ascontiguousarray(one)) for one in studied.pictures)
