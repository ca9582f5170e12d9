"""The extension's engine around one U-Net of SD1.5's size, as a host adapter uses it in txt2img."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lib_controlnet.core.control import Control
from lib_controlnet.core.step import Pass, RowCursor, Step
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.effects.base import Sampling
from lib_controlnet.engine.generation import Picture, Pixels
from lib_controlnet.engine.injection import UNetHooks
from lib_controlnet.engine.library import ModelLibrary
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.engine.preprocess import PreprocessorSpec, PreprocessRunner
from lib_controlnet.engine.services import Services
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover

from . import networks


@dataclass
class BenchGeneration:
    """A txt2img job of one picture without hires fix, as a session sees it."""

    width: int
    height: int
    hires: bool = False
    final_size: tuple[int, int] = (0, 0)
    paints_mask: bool = False
    seed: int = 1
    unit_per_image: bool = False
    base: BaseModel = field(default_factory=lambda: BaseModel(networks.SD15, "random weights"))
    base_id: str = "bench"
    runtime: Runtime = field(default_factory=lambda: Runtime(torch.device("cpu"), torch.float32))

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture."""
        return [] if unit.image is None else [Picture(unit.image, unit.mask, unit.resize_mode)]

    def region(self, unit: ControlNetUnit) -> Pixels | None:
        """Nothing is cut."""
        return unit.region_mask

    def sampling(self) -> Sampling:
        """No unit here has an effect that asks for it."""
        raise NotImplementedError


class Stage(AbstractContextManager["Stage"]):
    """A U-Net, a ControlNet file in a folder of its own, and the services of one WebUI around them."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._folder = tempfile.TemporaryDirectory(prefix="controlnet-bench-")
        self.file = networks.controlnet_file(Path(self._folder.name))
        self.unet = networks.unet()
        annotators = importlib.import_module("annotator.registry").discover("annotator")
        runtime = importlib.import_module("annotator.spec").Runtime
        self.services = Services(
            library=ModelLibrary(lambda: [self.file.parent]),
            annotators=annotators,
            preprocess=PreprocessRunner(annotators, runtime),
            models=ModelCache(discover(), limit=lambda: 1 << 40),
            setting=lambda _key, default: default,
        )
        self.x, self.timesteps, self.context = networks.inputs(pixels)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def unit(self, **changes: Any) -> ControlNetUnit:
        """An enabled unit with a picture and this stage's model."""
        picture = np.random.default_rng(5).integers(0, 256, (self.pixels, self.pixels, 3), dtype=np.uint8)
        settings: dict[str, Any] = {"enabled": True, "image": picture, "model": self.file.stem, **changes}
        return ControlNetUnit(**settings)

    def bare_step(self) -> Tensor:
        """The U-Net's forward, as it is without the extension."""
        with torch.no_grad():
            return self.unet(self.x, self.timesteps, self.context)

    def controlled(self, *units: ControlNetUnit) -> ControlledStep:
        """A denoiser step of a job with `units`."""
        session = ControlSession(self.services, BenchGeneration(self.pixels, self.pixels))
        session.prepare(units)
        session.begin(Pass.base, self.pixels, self.pixels)
        return ControlledStep(self, session)


class ControlledStep:
    """One denoiser step with control; its hooks are on the U-Net only while it runs, so that steps can take turns."""

    def __init__(self, stage: Stage, session: ControlSession) -> None:
        self._stage = stage
        self._session = session

    @property
    def network(self) -> nn.Module:
        """The first unit's ControlNet."""
        return cast(Any, self._session.runs[0].model).net

    def begin(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None) -> tuple[Step, Control | None]:
        """As a host's sampling drives the session."""
        step = Step(x, timesteps, context, y, *self._cursor.take(x.shape[0]), progress=0.5)
        return self._session.begin_call(self._stage.unet, step)

    def end(self, step: Step, output: Tensor, left: Sequence[str]) -> Tensor:
        """See `begin`."""
        return self._session.end_call(step, output, left)

    def __call__(self) -> Tensor:
        self._cursor = RowCursor([1] * (networks.ROWS // 2), networks.ROWS)
        hooks = UNetHooks(self._stage.unet, self)
        try:
            return self._stage.bare_step()
        finally:
            hooks.remove()
