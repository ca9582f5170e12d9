"""How well the pictures of a job follow the maps of its units: measured as each is made, told with the result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from ...core.errors import ControlNetError
from ...core.hints import Hint
from ...core.images import Pixels
from ...core.modes import ResizeMode
from ...core.step import Pass
from ...engine.effect import PassEffect
from ...engine.generation import UnitRun
from ...engine.measured_maps import MOST_PICTURES
from ...engine.metering import (
    DECIMALS,
    Detector,
    Metered,
    mean_of,
    measure_picture,
    measuring,
    rounded,
    share_followed,
    with_note,
)
from ...engine.services import Services
from ...engine.session import ControlSession
from ...measure.people import moved
from ...measure.score import Evidence, Mask
from ...measure.shown import error_map
from .effects import effect_words, with_effects
from .notes import ADHERENCE, say, tell
from .pictures import crop_box, host_mask

log = logging.getLogger("ControlNet")
_BAR = 10
MEASURED = "controlnet_measured"
"""The attribute of a processing object whose pictures are measured whatever the option says."""
RUNS = "controlnet_measured_runs"
"""That of one whose units are wanted after its end: a mapping for them, by number."""


@dataclass(frozen=True)
class Row:
    """What was found of one unit in one picture; `problem` says why nothing could be."""

    unit: int
    preprocessor: str
    model: str
    metered: Metered | None
    problem: str = ""

    def report(self) -> dict[str, Any]:
        """As JSON."""
        if self.metered is None:
            return {"adherence": None, "problem": self.problem}
        return {**self.metered.report(), "seconds": round(self.metered.seconds, DECIMALS)}

    def words(self) -> str:
        """For the infotext and the page."""
        if self.metered is None:
            return f"unit {self.unit} not measured"
        return f"unit {self.unit} {self.metered.score.words()}"


@dataclass(eq=False)
class JobMeter:
    """The pictures of a job so far, in their order, each with a row for each of its units."""

    services: Services
    pictures: list[list[Row]] = field(default_factory=list[list[Row]])
    error_maps: list[list[Pixels]] = field(default_factory=list[list[Pixels]])
    """Of each picture those that are appended to the result."""
    seen: list[Pixels | None] = field(default_factory=list["Pixels | None"])
    """The pictures themselves; of a long job the first alone."""

    def add(self, p: Any, session: ControlSession, picture: Image.Image) -> None:
        """A picture of the job has been made; it may be the part that is painted "only masked"."""
        pixels = np.asarray(picture.convert("RGB"), np.uint8)
        image = len(self.pictures) % max(int(getattr(p, "batch_size", 1) or 1), 1)
        runs = units_of(session)
        rows = [self._row(p, session, run, pixels, image) for run in runs]
        getattr(p, RUNS, {}).update({run.unit.index: run for run in runs})
        self.pictures.append(rows)
        self.seen.append(pixels if len(self.seen) < MOST_PICTURES else None)
        self.error_maps.append([])
        p.extra_generation_params[ADHERENCE] = "; ".join(row.words() for row in rows)
        if self.services.setting("controlnet_measure_maps", False):
            opacity = float(self.services.setting("controlnet_measure_opacity", 0.7))
            fields = [row.metered.field for row in rows if row.metered is not None]
            self.error_maps[-1] = [error_map(pixels, one, opacity) for one in fields if one is not None]

    def _row(self, p: Any, session: ControlSession, run: UnitRun, pixels: Pixels, image: int) -> Row:
        try:
            if not session.has_say(run, image):
                return Row(run.unit.index, run.spec.id, run.model_name, None, "this picture is not the unit's")
            metered = measure_run(self.services, p, run, pixels, image)
            return Row(run.unit.index, run.spec.id, run.model_name, metered)
        except ControlNetError as error:
            log.warning("Unit %d could not be measured: %s", run.unit.index, error)
            return Row(run.unit.index, run.spec.id, run.model_name, None, str(error))

    def adherences(self) -> list[dict[int, float | None]]:
        """Of each picture, by unit."""
        return [
            {row.unit: None if row.metered is None else row.metered.score.adherence for row in rows}
            for rows in self.pictures
        ]

    def means(self) -> list[float | None]:
        """Of each picture, over its units."""
        return [mean_of([row.report() for row in rows]) for rows in self.pictures]

    def reorder(self, order: Sequence[int]) -> None:
        """The pictures stand in another order now: place -> its place before."""
        self.pictures = [self.pictures[place] for place in order]
        self.seen = [self.seen[place] for place in order]
        self.error_maps = [self.error_maps[place] for place in order]

    def report(self) -> list[dict[str, Any]]:
        """For each unit its mean and what was found in each picture, as JSON."""
        answer: list[dict[str, Any]] = []
        for rows in _by_unit(self.pictures):
            reports = [row.report() for row in rows]
            first = rows[0]
            answer.append({
                "unit": first.unit, "preprocessor": first.preprocessor, "model": first.model,
                "adherence": mean_of(reports), "pictures": reports,
            })  # fmt: skip
        return answer


def hand_over(
    meter: JobMeter | None,
    effects: Sequence[PassEffect],
    session: ControlSession,
    p: Any,
    processed: Any,
    bounds: Callable[[UnitRun], Mapping[str, Any]] = lambda _run: {},
) -> None:
    """Tells the result: a line a unit under the pictures where they were measured, `info.controlnet` in the API, and
    the error maps. `bounds`: floor and ceiling of a unit, where they were asked for.
    """
    measured = [] if meter is None else [{**row, **_limits(row, session, bounds)} for row in meter.report()]
    names = [
        {"unit": run.unit.index, "preprocessor": run.spec.id, "model": run.model_name} for run in units_of(session)
    ]
    report = with_effects(measured, effects, names)
    if report:
        into_answer(processed, "controlnet", report)
    if meter is None:
        return
    by_unit = {row["unit"]: row for row in report}
    for unit, rows in zip(measured, _by_unit(meter.pictures), strict=True):
        tell(p, processed, _line(by_unit[unit["unit"]], rows, _keep_maps(meter, rows, processed)))
    processed.images.extend(Image.fromarray(one) for maps in meter.error_maps for one in maps)


def metered(
    meter: JobMeter | None, services: Services, p: Any, session: ControlSession, picture: Image.Image
) -> JobMeter | None:
    """A picture of a job is ready: the job's meter with it, None where nothing is measured. Never raises."""
    if meter is None and not services.setting("controlnet_measure", False) and not getattr(p, MEASURED, False):
        return None
    meter = meter or JobMeter(services)
    try:
        meter.add(p, session, picture)
    except Exception as error:  # the pictures are right, and the host would swallow it
        log.exception("A picture could not be measured.")
        say(p, f"a picture could not be measured: {type(error).__name__}: {error}")
    return meter


def units_of(session: ControlSession) -> list[UnitRun]:
    """One run a unit: those that merge pictures which their model does not take together are one unit again."""
    return list({run.unit.index: run for run in reversed(session.runs)}.values())[::-1]


def _limits(
    row: Mapping[str, Any], session: ControlSession, bounds: Callable[[UnitRun], Mapping[str, Any]]
) -> dict[str, Any]:
    """Floor and ceiling of a measured unit, and how much of what lies between them it has, 0..1."""
    run = next((run for run in units_of(session) if run.unit.index == row["unit"]), None)
    found = {} if run is None else dict(bounds(run))
    share = share_followed(row["adherence"], found.get("floor"), found.get("ceiling"))
    return found if share is None else {**found, "followed": rounded(share)}


def _limit_words(unit: Mapping[str, Any]) -> str:
    if "floor" not in unit:
        return ""
    floor = "" if unit["floor"] is None else f"{unit['floor']:.2f} without control"
    ceiling = unit.get("why_no_ceiling") or f"{unit['ceiling']:.2f} is the source picture through the VAE"
    could = f"{100 * unit['followed']:.0f} % of what it could: " if "followed" in unit else ""
    return could + ", ".join(filter(None, (floor, ceiling)))


def _by_unit(pictures: Sequence[Sequence[Row]]) -> Iterator[list[Row]]:
    for unit in dict.fromkeys(row.unit for rows in pictures for row in rows):
        yield [row for rows in pictures for row in rows if row.unit == unit]


def _keep_maps(meter: JobMeter, rows: Sequence[Row], processed: Any) -> str:
    """Keeps where a unit's pictures follow for the page, which asks by the number that is said with the bar."""
    first = int(getattr(processed, "index_of_first_image", 0))
    maps = {
        first + place: (picture, row.metered.field)
        for place, (picture, row) in enumerate(zip(meter.seen, rows, strict=False))
        if picture is not None and row.metered is not None and row.metered.field is not None
    }
    if not maps:
        return ""
    number = meter.services.measured.keep(maps)
    return f"error map {number}"


def _line(unit: dict[str, Any], rows: Sequence[Row], map_: str) -> str:
    problem = next((row.problem for row in rows if row.problem), "")
    effect = effect_words(unit)
    if unit["adherence"] is None:
        why = problem or "nothing of the pictures is scored"
        return "; ".join(filter(None, (f"ControlNet unit {unit['unit']} was not measured: {why}", effect)))
    done = round(unit["adherence"] * _BAR)
    values = "; ".join(row.words().partition(f"unit {row.unit} ")[2] for row in rows[:8] if row.metered is not None)
    detector = next(row.metered.detector for row in rows if row.metered is not None)
    return (
        f"ControlNet unit {unit['unit']} follows its map {'█' * done}{'░' * (_BAR - done)} {unit['adherence']:.2f} "
        f"({'; '.join(filter(None, (_limit_words(unit), values, detector, effect, map_)))})"
    )


def into_answer(processed: Any, name: str, report: Any) -> None:
    """The host's text of the result, from which page and API read, has `report` under `name` in it."""
    original: Callable[[], str] = processed.js

    def js(*args: Any, **kwargs: Any) -> str:
        return json.dumps({**json.loads(original(*args, **kwargs)), name: report})

    processed.js = js


def measure_run(services: Services, p: Any, run: UnitRun, pixels: Pixels, image: int) -> Metered:
    """How well a picture (H, W, 3) of place `image` in its batch follows a unit's map. Raises ControlNetError."""
    result = run.result_of(image)
    if result is None:
        raise ControlNetError("the unit has no picture for this frame of the film")
    specs = [entry.spec for entry in services.annotators.entries]
    params = (*result.params, -1.0, -1.0)
    detector = Detector(run.spec, None, params[0], params[1])
    detector = with_note(detector, measuring(specs, run.spec, run.model_name))
    if result.found.tensors is not None:
        return measure_picture(services.preprocess, pixels, result.found, detector)
    hints = run.hints.get(Pass.hires) or run.hints.get(Pass.base) or ()
    if not hints:
        raise ControlNetError("the unit had no part in any pass, so that there is no map of the picture's size")
    hint = hints[image if len(hints) > 1 else 0]
    width, height = hint.size
    old_height, old_width = result.map.shape[:2]
    if detector.spec is run.spec:  # as finely as the source was looked at
        scale = _scale(run.resize_mode, (old_width, old_height), (width, height))
        side = max(1, round(min(width, height) / ((scale[0] * scale[1]) ** 0.5)))
        detector = Detector(detector.spec, side, detector.threshold_a, detector.threshold_b, detector.notes)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), np.uint8)
    inside = _scored(p, run, (width, height), (old_width, old_height))
    return measure_picture(services.preprocess, pixels, _wanted(run, result, hint), detector, inside)


def _scale(mode: ResizeMode, old: tuple[int, int], new: tuple[int, int]) -> tuple[float, float]:
    """By what a map's width and height were multiplied to fit a pass."""
    across, down = new[0] / old[0], new[1] / old[1]
    if mode is ResizeMode.just_resize:
        return across, down
    both = min(across, down) if mode is ResizeMode.resize_and_fill else max(across, down)
    return both, both


def _wanted(run: UnitRun, result: Any, hint: Hint) -> Evidence:
    """The map as the model got it: an inpaint map with what was to be painted in a fourth channel."""
    map_ = np.ascontiguousarray(hint.display[:, :, :3])
    if hint.mask is not None:
        painted = (hint.mask[0, 0].cpu().numpy() * 255).astype(np.uint8)
        map_ = np.dstack([map_, painted])
    pose = result.found.pose
    if pose is not None:
        old = (result.map.shape[1], result.map.shape[0])
        pose = moved(pose, old, hint.size, _scale(run.resize_mode, old, hint.size))
    return Evidence(map_, pose)


def _scored(p: Any, run: UnitRun, size: tuple[int, int], old: tuple[int, int]) -> Mask | None:
    """Where the unit has a say: its region, what the host paints, and not the border that fitting has added."""
    width, height = size
    inside = np.ones((height, width), bool)
    if run.region is not None:
        inside &= run.region.at(torch.empty(1, 1, height, width))[0, 0].numpy() > 0.5
    if getattr(p, "image_mask", None) is not None:
        inside &= _painted(p, size)
    if run.resize_mode is ResizeMode.resize_and_fill:
        scale = _scale(run.resize_mode, old, size)[0]
        kept = min(width, round(old[0] * scale)), min(height, round(old[1] * scale))
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        border = np.ones((height, width), bool)
        border[top : top + kept[1], left : left + kept[0]] = False
        inside &= ~border
    return None if inside.all() else inside


def _painted(p: Any, size: tuple[int, int]) -> Mask:
    """What the host paints anew, in the picture that it makes."""
    mask = host_mask(p)
    box = crop_box(p, mask) if getattr(p, "inpaint_full_res", False) else None
    if box is not None:
        mask = mask.crop(box)
    stretched = cv2.resize(np.asarray(mask, np.uint8), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(stretched) > 127
