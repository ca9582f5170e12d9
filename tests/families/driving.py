"""Bound controls in a U-Net call of a real session, without a job around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.residuals import RegionMask, Residuals
from lib_controlnet.core.schedule import GuidanceRange
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.engine.generation import UnitRun
from lib_controlnet.engine.injection import UNetHooks
from lib_controlnet.engine.preprocess import Found, PreprocessResult
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.engine.sites import LdmSites
from lib_controlnet.families.base import BaseModel, BoundControl, ControlModel, OwnControl, UnitSettings
from lib_controlnet.nets.config import UNetConfig
from tests.engine.test_session import SIZE, FakeGeneration, FakeSpec, services, unit
from tests.engine.tiny import SD1_SHAPED


def settings(config: UNetConfig = SD1_SHAPED, **changes: Any) -> UnitSettings:
    """What unit 0 asks for, on a tiny checkpoint of that architecture."""
    return UnitSettings(**{"unit": 0, "base": BaseModel(config, "tiny.safetensors"), **changes})


def session_of(*bounds: BoundControl, outputs: int = 0, **changes: Any) -> ControlSession:
    """A session of a unit for each of `bounds`, its first pass begun; as `session_with`.

    outputs: residuals that each gives.
    """
    models = [OwnControl("given", lambda _hints, _settings, bound=bound: bound) for bound in bounds]
    for model in models:
        model.outputs = outputs
    return session_with(models, **changes)


def session_with(
    models: Sequence[ControlModel],
    embeddings: Mapping[str, Tensor] | None = None,
    generation: Any = None,
    size: tuple[int, int] = (SIZE, SIZE),
    region: Tensor | None = None,
    **changes: Any,
) -> ControlSession:
    """A session of a unit for each of `models`, its first pass begun. `changes`: of every unit.

    embeddings: what their preprocessor gives; else a black map. size: (width, height) in pixels. region: (1, 1, H, W),
    where every unit acts.
    """
    session = ControlSession(services(Path("nowhere")), generation or FakeGeneration())
    map_ = np.zeros((SIZE, SIZE, 3), np.uint8) if embeddings is None else None
    found, spec = Found(map_, None, embeddings), FakeSpec(returns_image=embeddings is None)
    for index, model in enumerate(models):
        one = unit(index, **changes)
        result = PreprocessResult(found, spec, SIZE, ())
        guidance = GuidanceRange(one.guidance_start, one.guidance_end)
        mask = None if region is None else RegionMask(region)
        session.runs.append(UnitRun(one, "None", model, [result], ResizeMode.just_resize, guidance, mask))
    session.begin(Pass.base, *size)
    return session


class Driving:
    """A PassControl: every call of the U-Net is the session's `step`."""

    def __init__(self, session: ControlSession, step: Step) -> None:
        self._session, self._step = session, step

    def begin(self, *_: object) -> tuple[Step, Residuals | None]:
        return self._session.begin_call(self._step)

    def end(self, output: Tensor, left: Sequence[str]) -> Tensor:
        return self._session.end_call(output, left)

    def done(self) -> None:
        self._session.done()


@contextmanager
def on_unet(unet: nn.Module, session: ControlSession, step: Step) -> Any:
    """The session's hooks on `unet`."""
    with ExitStack() as undo:
        sites = LdmSites(unet)
        undo.callback(sites.remove)
        session.attach(sites)
        undo.callback(UNetHooks(unet, Driving(session, step)).remove)
        yield


def hooked(unet: nn.Module, now: Step, *bounds: BoundControl, **changes: Any) -> Tensor:
    """The prediction of `unet` for a step with control."""
    return called(unet, now, session_of(*bounds, **changes))


def called(unet: nn.Module, now: Step, session: ControlSession) -> Tensor:
    """The prediction of `unet` for a step of a session."""
    with torch.no_grad(), on_unet(unet, session, now):
        return unet(now.x, now.timesteps, now.context, now.y)


def conditioned(now: Step, *bounds: BoundControl, **changes: Any) -> Step:
    """The step as the U-Net is to get it."""
    session = session_of(*bounds, **changes)
    told, _ = session.begin_call(now)
    session.done()
    return told


def predicted(bound: BoundControl, now: Step, output: Tensor, **changes: Any) -> Tensor:
    """What becomes of the U-Net's prediction `output`."""
    session = session_of(bound, **changes)
    session.begin_call(now)
    changed = session.end_call(output, [])
    session.done()
    return changed
