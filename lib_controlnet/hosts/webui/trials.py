"""Short jobs within a job: the same seed with other values of units, each measured."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import HostError
from ...engine.generation import UnitRun
from ...engine.services import Services
from .axes import AXES
from .metering import MEASURED, RUNS, measure_run
from .prompts import FIRST_RESULT
from .stopping import was_interrupted

TRIAL = "controlnet_trial"
"""The attribute of a processing object that is a trial of another one."""

Changes = Mapping[Any, object]
"""(unit or None for all, field) -> value."""
WITHOUT = {"weight": 0.0, "weight_schedule": "", "hr_weight_schedule": "", "layer_weights": ""}
"""A unit that does nothing, and is measured all the same."""


class StoppedError(Exception):
    """The user has pressed Interrupt or Skip."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One picture of a job, and what the meter says of its units, by number. p, runs: the job, and its units."""

    picture: Image.Image
    units: Mapping[int, Mapping[str, Any]]
    p: Any = None
    runs: Mapping[int, UnitRun] = field(default_factory=dict[int, UnitRun])

    def adherence(self, unit: int) -> float:
        """Raises HostError where the unit was not measured."""
        report = self.units.get(unit, {})
        if report.get("adherence") is None:
            problems = [row["problem"] for row in report.get("pictures", ()) if row.get("problem")]
            raise HostError(
                "the unit cannot be measured, and so nothing can be found out about it",
                unit=unit,
                field="preprocessor",
                found=next(iter(problems), "nothing of the picture is its own"),
                remedy="choose a preprocessor that makes such maps, or measure by eye",
            )
        return float(report["adherence"])


def follows(services: Services, first: Trial, unit: int, other: Trial) -> float:
    """How well the picture of `other` follows the map that a unit had in `first`. Raises HostError."""
    first.adherence(unit)
    pixels = np.asarray(other.picture.convert("RGB"), np.uint8)
    return measure_run(services, first.p, first.runs[unit], pixels, 0).score.adherence or 0.0


def settle_seed(p: Any) -> None:
    """Trials and the job itself have one seed."""
    if p.seed in (None, "", -1):
        p.seed = random.randrange(1 << 32)


def run_trial(p: Any, changes: Changes, steps: int = 0, prompt: str | None = None) -> Trial:
    """Makes one picture of the job's first pass, which is not saved. Raises StoppedError, and what stops a job."""
    from modules import processing

    trial = copy.copy(p)
    for name in (TRIAL, FIRST_RESULT, MEASURED):
        setattr(trial, name, True)
    runs: dict[int, UnitRun] = {}
    setattr(trial, RUNS, runs)
    setattr(trial, AXES, {**getattr(p, AXES, {}), **changes})
    trial.n_iter, trial.batch_size = 1, 1
    trial.do_not_save_samples = trial.do_not_save_grid = True
    trial.extra_generation_params = dict(p.extra_generation_params)
    if getattr(p, "comments", None) is not None:
        trial.comments = type(p.comments)()  # what is said of a trial is not the job's
    trial.steps = steps or p.steps
    if prompt is not None:
        trial.prompt = prompt
    if getattr(trial, "enable_hr", False):
        trial.enable_hr = False
    processed = processing.process_images(trial)
    if was_interrupted() or not processed.images:
        raise StoppedError
    units = json.loads(processed.js()).get("controlnet", [])
    return Trial(processed.images[processed.index_of_first_image], {row["unit"]: row for row in units}, trial, runs)
