"""From what a unit asks to what acts: its map, its model, and both bound for a pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..core.batch import parted
from ..core.control_types import UNION_TYPES
from ..core.errors import PreprocessorError, UnitError
from ..core.frames import Film
from ..core.hints import Hint, hint_from_map
from ..core.modes import HiResOption, InputMode, ResizeMode, UnionType
from ..core.preprocessors import PreprocessorSpec
from ..core.schedule import GuidanceRange, WeightCurve, layer_weights
from ..core.step import Pass
from ..core.units import IMAGE_PROMPT, ControlNetUnit
from ..families.base import BoundControl, ControlModel, OwnControl, UnitSettings
from ..families.registry import own_controls
from ..measure.metrics import expected_kind
from ..measure.suspect import suspicion
from .embedded import beside, check_kind, given, together
from .generation import Generation, Picture, UnitRun
from .library import NO_MODEL
from .look import Target, chosen, look, sheet
from .parts import Part
from .preprocess import Found, PreprocessResult
from .services import Services
from .tiles import with_region

log = logging.getLogger("ControlNet")


class UnitPreparation:
    """Prepares the units of one generation, and binds them to each of its passes."""

    def __init__(self, services: Services, generation: Generation) -> None:
        self._services = services
        self._generation = generation

    def prepared(self, unit: ControlNetUnit, low_vram: bool = False) -> list[UnitRun]:
        """An enabled unit; one that merges pictures which its model does not take together as one for each of them.

        Preprocesses and loads; `low_vram`: the job is to need the least memory. Raises ControlNetError.
        """
        unit, target = self._seen(unit)
        spec = sheet(self._services, unit)
        model_name, model = self._model(unit, spec, low_vram)
        check_kind(unit, spec, model)
        parts = [unit] if model.embeddings else parted(unit)
        return [self._prepare(part, spec, target, model_name, model) for part in parts]

    def _prepare(
        self, unit: ControlNetUnit, spec: PreprocessorSpec, target: Target, model_name: str, model: ControlModel
    ) -> UnitRun:
        results, resize_mode = self._results(unit, spec, target)
        notes = [*self._model_notes(model), *_unheard(unit, model), *_suspected(results, model_name)]
        unit = replace(unit, notes=(*unit.notes, *notes), reuse_control=self._reuse(unit, model))
        guidance = GuidanceRange(unit.guidance_start, unit.guidance_end)
        run = UnitRun(unit, model_name, model, results, resize_mode, guidance, None)
        run.asked_region = self._generation.region(unit, spec)
        _set_region(run, (self._generation.width, self._generation.height))
        run.own = None if model_name == NO_MODEL else self._own(spec)
        self._check_batch(unit)
        for pass_ in Pass:
            self._layers(run, pass_)(0.0)  # a wrong list of weights is found now, not while sampling
        run.curve = _curve(unit, Pass.base)
        return run

    def _results(
        self, unit: ControlNetUnit, spec: PreprocessorSpec, target: Target
    ) -> tuple[Sequence[PreprocessResult], ResizeMode]:
        """What the preprocessor finds: once, or once an image of the batch."""
        if spec.pictureless:
            return [PreprocessResult(Found(None, tensors={}), spec, 0, ())], unit.resize_mode
        if unit.embeddings:
            return [given(unit, spec)], unit.resize_mode
        merges = unit.input_mode is InputMode.merge
        asked = parted(unit) if merges else [unit]
        pictures = [picture for part in asked for picture in self._generation.pictures(part, spec)]
        if not pictures:
            raise UnitError(
                "the unit is enabled and has no picture",
                field="image",
                found="no image",
                remedy="give the unit an image, use img2img, or disable the unit",
            )
        uncond = [] if unit.uncond_image is None else [Picture(unit.uncond_image, None, unit.resize_mode)]
        with self._services.preprocess.held():
            found, own = (
                [look(self._services, unit, picture, target) for picture in each] for each in (pictures, uncond)
            )
        results = [together(found)] if merges else found
        return [beside(result, own) for result in results], pictures[0].resize_mode

    def _seen(self, unit: ControlNetUnit) -> tuple[ControlNetUnit, Target]:
        """The unit with the preprocessor that is run for it, and what its map is made for."""
        generation = self._generation
        size = (generation.width, generation.height)
        target = Target(size, generation.final_size, generation.seed, generation.paints_mask)
        seen = chosen(self._services, unit, target)
        if seen is not unit and not self._services.preprocess.entry(unit.preprocessor).spec.by_model:  # as the peers
            text = "Unit %d: the host paints within a mask itself: %s becomes %s."
            log.warning(text, unit.index, unit.preprocessor, seen.preprocessor)
        return seen, target

    def _reuse(self, unit: ControlNetUnit, model: ControlModel) -> float:
        """The unit's budget, or the option's where it has none and that does something."""
        wanted = float(self._services.setting("controlnet_reuse_control", 0))
        return wanted if unit.reuse_control < 0.0 < wanted and model.reusable else unit.reuse_control

    def _model_notes(self, model: ControlModel) -> list[str]:
        if not (model.holds_base and self._generation.runtime.base_rounded):
            return []
        return [
            "its model holds differences to the checkpoint, which is held in fp8: they were added to rounded weights; "
            'with the option "Cache FP16 weight for LoRA" the host keeps the true ones'
        ]

    def _model(self, unit: ControlNetUnit, spec: PreprocessorSpec, low_vram: bool) -> tuple[str, ControlModel]:
        own = self._own(spec) if spec.model_free else None
        if own is not None:
            return NO_MODEL, own
        if spec.model_free or unit.model.strip().lower() in ("", NO_MODEL.lower()):
            raise UnitError(
                "the unit is enabled and has no model",
                field="model",
                found=unit.model,
                remedy="choose a control model, or disable the unit",
            )
        entry = self._services.library.find(unit.model)
        runtime = self._generation.runtime
        runtime = replace(runtime, keeps_fp8=runtime.keeps_fp8 or low_vram)
        model = self._services.models.get(entry.path, runtime, self._generation.base_id)
        model.check(self._generation.base)
        _check_told(spec, model, entry.name)
        return entry.name, model

    def _own(self, spec: PreprocessorSpec) -> ControlModel | None:
        """What a preprocessor does to the sampling by itself. Raises BaseModelError where it cannot."""
        own = own_controls().get(spec.effect)
        if own is not None:
            own.check(self._generation.base)
        return own

    def bind(self, run: UnitRun, pass_: Pass, width: int, height: int) -> None:
        """Binds a unit's controls to its hints for a pass of `width` x `height` pixels."""
        hints = self.hints(run, pass_, width, height)
        _set_region(run, (width, height))
        run.rests = self._rests(run, pass_)
        run.curve = _curve(run.unit, pass_)
        run.layers = self._layers(run, pass_)
        run.settings = self._settings(run, pass_)
        run.parts = () if run.rests else [Part(model, model.bind(hints, run.settings)) for model in run.models]
        whole = [part for part in run.parts if not part.bound.regional]
        if run.region is not None and whole and run.unit.region_mask is None:
            run.region = None  # it was not asked for, and nothing could keep to it
        elif run.region is not None and whole:
            name = run.spec.label if isinstance(whole[0].model, OwnControl) else whole[0].model.path.name
            raise UnitError(
                f'"{name}" acts on the whole picture, whatever a region mask says',
                field="effective_region_mask",
                found="a region mask",
                remedy="remove the mask",
            )
        _check_strengths(run)

    def hints(self, run: UnitRun, pass_: Pass, width: int, height: int) -> Sequence[Hint]:
        """A hint a map, in the pass's size; none where the preprocessor gives embeddings. Frames of a film without a
        picture have black ones.
        """
        hints = run.hints.get(pass_)
        if hints is None or any(hint.size != (width, height) for hint in hints):
            maps = [result.map for result in run.results if result.found.tensors is None]
            hints = [hint_from_map(map_, width, height, run.resize_mode) for map_ in maps]
            hints = run.hints[pass_] = _at_key_frames(run, hints, self._generation.batch_size)
        return hints

    def whole_hint(self, run: UnitRun, pass_: Pass, size: tuple[int, int]) -> Tensor:
        """The one hint of a unit for a pass of `size` (width, height), with its region mask as a fourth channel.

        (1, 3 or 4, H, W) float32. Raises UnitError where there is one for each picture of a batch, or none.
        """
        hints = self.hints(run, pass_, *size)
        if len(hints) != 1:
            raise UnitError(
                "an extension cuts the picture into tiles, and the unit has not one map that could be cut with it",
                unit=run.unit.index,
                field="image",
                found=f"{len(hints)} maps",
                remedy="make the pictures one by one, or switch the tiles off",
            )
        return with_region(hints[0].image, run.region)

    def _layers(self, run: UnitRun, pass_: Pass) -> Callable[[float], tuple[float, ...]]:
        """Progress -> a factor for each output of the unit's model; raises UnitError for a list that does not fit."""
        unit, curve = run.unit, _curve(run.unit, pass_)
        custom, force_soft = unit.layer_weights, pass_ is Pass.hires and run.spec.soft_weights_in_hires
        legacy_ramp = bool(self._services.setting("controlnet_legacy_sdxl_ramp", False))

        @lru_cache(maxsize=1)  # without a curve they are the same at every step
        def of(weight: float) -> tuple[float, ...]:
            return layer_weights(
                run.model.outputs,
                weight,
                unit.control_mode,
                custom=custom if custom is None or curve is None else [weight * factor for factor in custom],
                force_soft=force_soft,
                legacy_ramp=legacy_ramp,
                ramp=run.model.ramp,
            )

        return lambda progress: of(unit.weight if curve is None else curve.at(progress))

    def _check_batch(self, unit: ControlNetUnit) -> None:
        count = self._generation.batch_size
        if unit.batch_weights is not None and len(unit.batch_weights) != count:
            raise UnitError(
                "there is not one weight for each picture of the batch",
                field="batch_weights",
                found=f"{len(unit.batch_weights)} weights for a batch of {count}",
                remedy=f"give {count} numbers, or none",
            )

    def _film(self, unit: ControlNetUnit) -> Film | None:
        if unit.frames is None:
            return Film(self._generation.batch_size) if self._generation.film else None
        return Film(self._generation.batch_size, unit.frames.keys)

    def _rests(self, run: UnitRun, pass_: Pass) -> bool:
        skipped = HiResOption.high if pass_ is Pass.base else HiResOption.low
        return self._generation.hires and run.unit.hr_option is skipped

    def _settings(self, run: UnitRun, pass_: Pass) -> UnitSettings:
        unit, spec = run.unit, run.spec
        return UnitSettings(
            unit=unit.index,
            base=self._generation.base,
            weight=unit.weight if run.curve is None else run.curve.peak,
            mode=unit.control_mode,
            pass_=pass_,
            params=run.results[0].params,
            options=spec.effect_options,
            tensors=[result.found.tensors or {} for result in run.results],
            scattered=bool(getattr(spec, "scatters", False)),
            face_points=bool(getattr(spec, "face_points", False)),
            union_type=unit.union_type,
            image_prompt=unit.image_prompt,
            pulid_mode=unit.pulid_mode,
            shows=_shown(spec),
            blur=int(self._services.setting("control_net_inpaint_blur_sigma", 7)),
            checkpoint=self._generation.checkpoint,
            film=self._film(unit),
        )


def _at_key_frames(run: UnitRun, hints: list[Hint], frames: int) -> Sequence[Hint]:
    """A hint for each frame of a film, black where none of the unit's key frames is."""
    keys = () if run.unit.frames is None else run.unit.frames.keys
    if not keys or (not hints and run.model.embeddings):  # what is heard between embeddings is the model's to say
        return hints
    if not hints:
        raise UnitError(
            "key frames are for control maps and IP-Adapters, and this unit's pictures act as prompts in another way",
            field="keyframe",
            found=", ".join(map(str, keys)),
            remedy="give a picture for each frame, or one for all of them",
        )
    first = hints[0]
    black = Hint(torch.zeros_like(first.image), None, np.zeros_like(first.display))
    placed = dict(zip(keys, hints, strict=True))
    return [placed.get(frame, black) for frame in range(frames)]


def _check_told(spec: PreprocessorSpec, model: ControlModel, name: str) -> None:
    """Raises PreprocessorError for a preprocessor that tells its network what to do, before a model that hears none."""
    unread = [option for option in spec.effect_options if not spec.effect and option not in model.options]
    if unread:
        raise PreprocessorError(
            f'"{spec.label}" tells a control model of another kind what to do',
            field="module",
            found=f'the model "{name}"',
            remedy=f"choose a model that reads {', '.join(unread)}, or another preprocessor",
        )


def _suspected(results: Sequence[PreprocessResult], model_name: str) -> list[str]:
    """What is plainly wrong with a map for its model: a photograph, inverted, empty. Said, and not prevented."""
    kind = expected_kind(results[0].spec, model_name)
    maps = [result.found.map for result in results if result.found.map is not None]
    found = [] if kind == "pictures" else [suspicion(map_, kind) for map_ in maps]  # of pictures any is right
    said = list(dict.fromkeys(one.text for one in found if one is not None))
    if not said and any(map_.shape[2] == 3 and not map_.any() for map_ in maps):
        return ["its control map is wholly black"]
    return said


def _shown(spec: PreprocessorSpec) -> UnionType:
    """What a preprocessor's maps are, as far as its control types say one and the same."""
    kinds = {UNION_TYPES[name] for name in spec.control_types if name in UNION_TYPES}
    return kinds.pop() if len(kinds) == 1 else UnionType.unknown


def _curve(unit: ControlNetUnit, pass_: Pass) -> WeightCurve | None:
    """The curve of a pass; the hires pass without its own has the same."""
    own = unit.hr_weight_schedule if pass_ is Pass.hires else None
    return own or unit.weight_schedule


def _unheard(unit: ControlNetUnit, model: ControlModel) -> list[str]:
    """What a unit asks of a picture that acts as a prompt, or of residuals, where its model takes or has none."""
    default = ControlNetUnit()
    names = () if model.embeddings else IMAGE_PROMPT
    asked = [name for name in names if getattr(unit, name) != getattr(default, name)]
    if unit.reuse_control > 0.0 and not model.reusable:
        asked.append("reuse_control")
    return [f"with this model these have no effect: {', '.join(asked)}"] if asked else []


def _check_strengths(run: UnitRun) -> None:
    """Raises UnitError for what a unit asks of its weight where nothing would keep to it."""
    unit, label = run.unit, run.spec.label
    stepless = any(not part.bound.stepwise for part in run.parts)
    if stepless and run.curve is not None and not run.curve.level:
        field = "hr_weight_schedule" if run.curve is unit.hr_weight_schedule else "weight_schedule"
        raise UnitError(
            f'"{label}" has one weight for all steps', field=field, found=str(run.curve), remedy="use the plain weight"
        )
    if unit.uncond_weight != 1.0 and (stepless or (run.parts and all(run.cond_only(part) for part in run.parts))):
        raise UnitError(
            f'"{label}" with this model and control mode gives the rows of the negative prompt nothing to weigh',
            field="uncond_weight",
            found=f"{unit.uncond_weight:g}",
            remedy='leave it at 1, or set the control mode to "Balanced"',
        )
    uneven = unit.batch_weights is not None and any(weight != 1.0 for weight in unit.batch_weights)
    if uneven and any(type(part.bound).condition is not BoundControl.condition for part in run.parts):
        raise UnitError(
            f'"{label}" has one weight for all pictures of a batch',
            field="batch_weights",
            found="weights that are not 1",
            remedy="remove them",
        )


def _set_region(run: UnitRun, size: tuple[int, int]) -> None:
    """Where the unit acts in a pass of `size` (width, height)."""
    asked = run.asked_region
    if asked is not None and (run.region is None or asked.resize_mode is not None):
        run.region = asked.of_pass(*size)
