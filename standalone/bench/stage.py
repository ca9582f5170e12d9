"""The extension's engine around one U-Net of SD1.5's size, as a host adapter uses it in txt2img."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.preprocessors import PreprocessorSpec
from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.step import Pass, RowCursor, Step
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.generation import Picture, Region
from lib_controlnet.engine.injection import UNetCall, UNetHooks
from lib_controlnet.engine.library import ModelLibrary
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.engine.services import Services
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.engine.sites import LdmSites
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, own_controls

from . import networks
from .family_files import FILES, embeddings, write


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
    film: bool = False
    base: BaseModel = field(default_factory=lambda: BaseModel(networks.SD15, "random weights"))
    base_id: str = "bench"
    runtime: Runtime = field(default_factory=lambda: Runtime(torch.device("cpu"), torch.float32))

    batch_size: int = 1
    """Pictures in the job's batch; each has a hint of its own where there are several."""

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture, turned by a quarter for each further one of the batch."""
        if unit.image is None:
            return []
        turned = [np.ascontiguousarray(np.rot90(unit.image, count)) for count in range(self.batch_size)]
        return [Picture(image, unit.mask, unit.resize_mode) for image in turned]

    def region(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Region | None:
        """Nothing is cut."""
        del spec
        return None if unit.region_mask is None else Region(unit.region_mask)

    def checkpoint(self) -> Checkpoint:
        """SD1.5's noise schedule, and in place of the VAE the picture's own pixels, made small."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        alphas = (1.0 - betas).cumprod(0).to(self.runtime.device)
        return Checkpoint(alphas, v_prediction=False, encode=_small, seed=self.seed)


def _small(pictures: Tensor) -> Tensor:
    """(n, 3, H, W) in 0..1 -> (n, 4, H/8, W/8): the colours and their mean."""
    small = functional.avg_pool2d(pictures, 8) * 2.0 - 1.0
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


CPU = Runtime(torch.device("cpu"), torch.float32)


class Given:
    """What a host gives its U-Net in a step: `x`, `timesteps` and `context`, on the device and in the type it has."""

    def __init__(self, pixels: int, runtime: Runtime = CPU) -> None:
        self.pixels = pixels
        self.runtime = runtime
        self.batch(1)

    def batch(self, images: int) -> None:
        """From now on the job has so many pictures."""
        self.images = images
        device, dtype = self.runtime.device, self.runtime.dtype
        x, timesteps, context = networks.inputs(self.pixels, rows=images * networks.ROWS)
        self.x, self.timesteps, self.context = x.to(device, dtype), timesteps.to(device), context.to(device, dtype)


class Stage(Given, AbstractContextManager["Stage"]):
    """A U-Net, a ControlNet file in a folder of its own, and the services of one WebUI around them."""

    def __init__(self, pixels: int, runtime: Runtime = CPU) -> None:
        super().__init__(pixels, replace(runtime, base_weights=lambda: dict(self.unet.state_dict())))
        self._folder = tempfile.TemporaryDirectory(prefix="controlnet-bench-")
        self.file = networks.controlnet_file(Path(self._folder.name))
        self.unet = networks.unet().to(runtime.device, runtime.dtype)
        annotators = importlib.import_module("annotator.sd_controlnet.registry").discover(own_controls())
        on_cpu = importlib.import_module("annotator.sd_controlnet.spec").Runtime
        self.services = Services(
            library=ModelLibrary(lambda: [self.file.parent]),
            annotators=annotators,
            preprocess=PreprocessRunner(annotators, on_cpu),
            models=ModelCache(discover(), limit=lambda: 1 << 40),
            setting=lambda _key, default: default,
        )

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def unit(self, **changes: Any) -> ControlNetUnit:
        """An enabled unit with a picture and this stage's model, or one of FILES."""
        picture = np.random.default_rng(5).integers(0, 256, (self.pixels, self.pixels, 3), dtype=np.uint8)
        settings: dict[str, Any] = {"enabled": True, "image": picture, "model": self.file.stem, **changes}
        if settings["model"] in FILES:
            settings["embeddings"] = embeddings(settings["model"])
            write(self.file.parent, settings["model"])
            self.services.library.refresh()
        return ControlNetUnit(**settings)

    def bare_step(self) -> Tensor:
        """The U-Net's forward, as it is without the extension."""
        with torch.no_grad():
            return self.unet(self.x, self.timesteps, self.context)

    def controlled(self, *units: ControlNetUnit) -> ControlledStep:
        """A denoiser step of a job with `units`."""
        job = BenchGeneration(self.pixels, self.pixels, runtime=self.runtime, batch_size=self.images)
        session = ControlSession(self.services, job)
        session.prepare(units)
        session.begin(Pass.base, self.pixels, self.pixels)
        return ControlledStep(self, session)


class ControlledStep:
    """One denoiser step with control; its hooks are on the U-Net only while it runs, so that steps can take turns."""

    def __init__(self, stage: Stage, session: ControlSession) -> None:
        self._stage = stage
        self.session = session
        self.progress = 0.5
        """Of the sampling: the part of its steps that is done."""
        self.turn, self.planned = 0, 0
        """Which denoiser call of how many it is; 0 where that is not told, so that nothing is reused."""
        self.noisy = False
        """Whether the sampler adds noise between its calls."""

    @property
    def network(self) -> nn.Module:
        """The first unit's ControlNet."""
        return cast(Any, self.session.runs[0].model).net

    def begin(self, given: UNetCall) -> tuple[Step, Residuals | None]:
        """As a host's sampling drives the session."""
        rows = self._cursor.take(len(given.x))
        told = {"progress": self.progress, "planned": self.planned, "turn": self.turn, "noisy": self.noisy}
        step = Step(*given.tensors, *rows, **told)
        return self.session.begin_call(step)

    def end(self, output: Tensor, left: Sequence[str]) -> Tensor:
        """See `begin`."""
        return self.session.end_call(output, left)

    def done(self) -> None:
        """See `begin`."""
        self.session.done()

    def __call__(self) -> Tensor:
        self._cursor = RowCursor([1] * self._stage.images, self._stage.images * networks.ROWS)
        with ExitStack() as undo:
            sites = LdmSites(self._stage.unet)
            undo.callback(sites.remove)
            self.session.attach(sites)
            undo.callback(UNetHooks(self._stage.unet, self).remove)
            return self._stage.bare_step()
