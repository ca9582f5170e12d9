"""Passes of denoiser steps as a host makes them, on the processor or on a pretended card, with units of every kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from annotator.sd_controlnet import registry
from annotator.sd_controlnet.spec import Detection
from annotator.sd_controlnet.spec import Runtime as AnnotatorRuntime
from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.modes import ResizeMode, UnionType
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.generation import Picture, Region
from lib_controlnet.engine.library import ModelLibrary
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.engine.services import Services
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover
from lib_controlnet.hosts.a1111 import A1111Host
from lib_controlnet.hosts.webui.jobs import stray_job
from lib_controlnet.hosts.webui.sampling import Sampling
from lib_controlnet.nets.coadapter import StyleAdapter, StyleConfig
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet_union import ControlNetUnion, UnionConfig
from lib_controlnet.nets.operations import layout_of
from lib_controlnet.nets.sparsectrl import SparseConfig, SparseControlNet
from lib_controlnet.nets.t2i_adapter import AdapterConfig, BlockSizes, T2IAdapter
from tests.engine.tiny import HINT_WIDTHS, SD1_SHAPED, SDXL_SHAPED, randomise, tiny_controlnet, tiny_unet
from tests.families import lllite_files, powerpaint_files, pulid_files
from tests.families.brushnet_reference import ReferenceBrushNet
from tests.families.ctrlora_files import files as ctrlora_files
from tests.families.ip_files import FACE, write
from tests.families.test_control_lora import control_lora
from tests.nets import xs_reference

from .card import Card, Event

SIZE = 64
STEPS = 2
WIDTH = 24
"""Of an embedding of a picture."""
SEEN = 16
"""Of the tokens of a picture."""
CONFIGS = {
    "SD1": replace(SD1_SHAPED, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(1, 0)),
    "SDXL": replace(SDXL_SHAPED, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(0, 1), middle_depth=1),
}
"""As small as they can be: what they compute by is what the true ones do."""
LEVELS = {name: replace(config, num_res_blocks=2) for name, config in CONFIGS.items()}
"""With as many blocks a level as the true ones, by which some families' files number theirs."""
WHOLE = {
    "SD1": replace(SD1_SHAPED, transformer_depth=(0, 0, 0, 0)),
    "SDXL": replace(SDXL_SHAPED, transformer_depth=(0, 0, 0), middle_depth=1),
}
"""With as many blocks as the true ones, by which some families know what they fit."""


def _controlnet_file(path: Path, config: UNetConfig, seed: int) -> None:
    save_file(tiny_controlnet(config, seed).state_dict(), path)


def _adapter_file(path: Path, config: UNetConfig, seed: int) -> None:
    widths = config.input_channels
    if len(widths) == 9:
        channels, read, unshuffle = [widths[3], widths[5], widths[8], config.middle_channels], 768, 16
    else:
        channels, read, unshuffle = [widths[place] for place in (2, 5, 8, 11)], 192, 8
    entered = [channels[0], *channels[:-1]]
    blocks = [(BlockSizes(come, go, 1, int(come != go)),) for come, go in zip(entered, channels, strict=True)]
    net = T2IAdapter(AdapterConfig(read, unshuffle, tuple(blocks), tuple(channels), False))
    save_file(randomise(net, seed).state_dict(), path)


def _lora_file(path: Path, config: UNetConfig, seed: int) -> None:
    del seed
    file, _ = control_lora(config, dict(tiny_unet(config).state_dict()))
    save_file({key: value.contiguous() for key, value in file.items()}, path)


def _union_file(path: Path, config: UNetConfig, seed: int) -> None:
    sizes = ControlNetConfig(config, 3, HINT_WIDTHS)
    save_file(randomise(ControlNetUnion(sizes, UnionConfig(6, 1, 8)), seed).state_dict(), path)


def _lllite_file(path: Path, config: UNetConfig, seed: int) -> None:
    save_file(lllite_files.weights(lllite_files.modules(config, seed=seed)), path)


def _xs_file(path: Path, config: UNetConfig, seed: int) -> None:
    net = xs_reference.adapter(config)
    save_file({key: value.contiguous() for key, value in randomise(net, seed).state_dict().items()}, path)


def _style_file(path: Path, config: UNetConfig, seed: int) -> None:
    save_file(randomise(StyleAdapter(StyleConfig(SEEN, 4, config.context_dim, 1)), seed).state_dict(), path)


def _sparse_file(path: Path, config: UNetConfig, seed: int) -> None:
    sizes = SparseConfig(ControlNetConfig(config, 4, HINT_WIDTHS), False, 4)
    place = re.compile(r"input_blocks\.(\d+)\.motion")

    def name(key: str) -> str:
        return place.sub(lambda m: f"down_blocks.{int(m[1]) // 3}.motion_modules.{int(m[1]) % 3 - 1}", key)

    weights = randomise(SparseControlNet(sizes), seed).state_dict()
    save_file({name(key): value for key, value in weights.items()}, path)


def _face_file(path: Path, config: UNetConfig, seed: int) -> None:
    write(path, "faceid", config, seed=seed)


def _pulid_file(path: Path, config: UNetConfig, seed: int) -> None:
    pulid_files.write(path, "v1", config, seed=seed)


def _brush_file(path: Path, config: UNetConfig, seed: int) -> None:
    weights = randomise(ReferenceBrushNet(config), seed).state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, path)


def _ctrlora_file(path: Path, config: UNetConfig, seed: int) -> None:
    base, lora, _ = ctrlora_files(config, seed)
    for file, weights in ((path.with_name("base.safetensors"), base), (path, lora)):
        save_file({key: value.contiguous() for key, value in weights.items()}, file)


def _powerpaint_file(path: Path, config: UNetConfig, seed: int) -> None:
    powerpaint_files.write(path, config, seed)


WriteFile = Callable[[Path, UNetConfig, int], None]
FAMILIES: Mapping[str, tuple[WriteFile, Mapping[str, UNetConfig]]] = {
    "brushnet": (_brush_file, LEVELS),
    "controlnet": (_controlnet_file, CONFIGS),
    "control_lora": (_lora_file, CONFIGS),
    "controlnet_union": (_union_file, CONFIGS),
    "controlnet_xs": (_xs_file, LEVELS),
    "ctrlora": (_ctrlora_file, CONFIGS),
    "ip_adapter": (_face_file, CONFIGS),
    "lllite": (_lllite_file, CONFIGS),
    "powerpaint": (_powerpaint_file, {"SD1": LEVELS["SD1"]}),
    "pulid": (_pulid_file, CONFIGS),
    "sparsectrl": (_sparse_file, LEVELS),
    "t2i_adapter": (_adapter_file, WHOLE),
    "t2i_style": (_style_file, CONFIGS),
}
"""By family: writes a tiny file of it for a U-Net, with weights drawn from a seed; and the U-Nets it fits."""
RESIDUALS = ("control_lora", "controlnet", "controlnet_union", "ctrlora", "sparsectrl", "t2i_adapter")
"""Families that steer by residuals; the others act in the U-Net's layers."""
EMBEDDED = {"ip_adapter": "ip-adapter_face_id", "pulid": "ip-adapter_pulid", "t2i_style": "clip_vision"}
"""By family that takes embeddings: the preprocessor that its units have in place of one that gives maps."""
MASKED = {"brushnet": "inpaint", "powerpaint": "powerpaint_removal"}
"""By family that takes a mask: the preprocessor that its units have in place of one that gives a map without."""
UNBOUNDED = ("t2i_style", "revision_clipvision", "revision_ignore_prompt")
"""Families and preprocessors that act on the whole picture, and refuse a region mask."""


@dataclass(frozen=True)
class Rows:
    """The rows of a denoiser step. conds: prompts of each picture; calls: rows of each U-Net call."""

    conds: tuple[int, ...]
    calls: tuple[int, ...]

    @property
    def images(self) -> list[int]:
        """Each row's picture, conds first."""
        asked = [image for image, count in enumerate(self.conds) for _ in range(count)]
        return [*asked, *range(len(self.conds))]


ROWS = {
    "guidance": Rows((1,), (2,)),
    "guidance left out": Rows((1,), (1,)),
    "prompts joined by AND": Rows((2,), (3,)),
    "prompts of unequal length": Rows((1,), (1, 1)),
    "AND of unequal length": Rows((3,), (2, 1, 1)),
    "batch": Rows((1, 1), (4,)),
    "batch in two calls": Rows((1, 1), (2, 2)),
    "batch with an AND": Rows((2, 1, 1), (7,)),
}


@dataclass(frozen=True)
class Types:
    """The types in which U-Net and control models are held."""

    unet: torch.dtype = torch.float32
    net: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format


@dataclass
class Made:
    """What a pass gave: predictions call by call, and what happened on the card in each denoiser step."""

    outputs: list[Tensor] = field(default_factory=list[Tensor])
    events: list[list[Event]] = field(default_factory=list[list[Event]])
    kernels: list[dict[str, int]] = field(default_factory=list[dict[str, int]])


@cache
def data_sheets() -> Mapping[str, Any]:
    """Of every preprocessor, installed or not."""
    found = registry.discover(effects=None)
    sheets = [entry.spec for entry in (*found.entries, *found.disabled.values())]
    return {spec.id: spec for spec in sheets if spec is not None}


class Annotators:
    """The true data sheets; the pictures themselves as maps, and numbers from a seed as embeddings."""

    entries = ()

    def get(self, name: str) -> Any:
        spec = data_sheets()[name]
        return SimpleNamespace(spec=spec, load=lambda _: partial(_detected, spec))


def _detected(spec: Any, image: Any, *, mask: Any, **_: Any) -> Any:
    if not spec.returns_image:
        seed = int(image.sum())
        generator = torch.Generator().manual_seed(seed)
        embeds, seen = torch.randn(1, WIDTH, generator=generator), torch.randn(1, 5, SEEN, generator=generator)
        face = torch.randn(1, FACE, generator=generator)
        tensors = {"image_embeds": embeds, "last_hidden_state": seen, "face_embeds": face}
        return Detection(tensors={**tensors, **pulid_files.embeddings(seed=seed)})
    return np.dstack([image, mask]) if spec.keeps_alpha else image.copy()


def base_weights(config: UNetConfig) -> Callable[[], Mapping[str, Tensor]]:
    """Of the U-Net that passes are made with."""
    return lambda: dict(tiny_unet(config).state_dict())


def effect_preprocessors() -> list[str]:
    """The ids of all preprocessors that do something to the sampling."""
    return [name for name, spec in data_sheets().items() if spec.effect]


class Generation:
    """A job of one size, as a session sees it."""

    width = height = SIZE
    hires = paints_mask = unit_per_image = film = False
    final_size = (SIZE, SIZE)
    seed = 3
    batch_size = 1
    base_id = "tiny"

    def __init__(self, config: UNetConfig, runtime: Runtime, sources: Sequence[Any], **given: Any) -> None:
        self.base = BaseModel(config, "tiny.safetensors")
        self.runtime = runtime
        self._sources = sources
        self.__dict__.update(given)

    def region(self, unit: ControlNetUnit, _spec: Any) -> Region | None:
        return None if unit.region_mask is None else Region(unit.region_mask)

    def pictures(self, unit: ControlNetUnit, _spec: Any) -> list[Picture]:
        sources = [unit.image] if unit.image is not None else self._sources
        return [Picture(image, unit.mask, unit.resize_mode) for image in sources]

    def checkpoint(self) -> Checkpoint:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        return Checkpoint(torch.cumprod(1.0 - betas, 0), False, self._encode, self.seed)

    def _encode(self, pixels: Tensor) -> Tensor:
        small = functional.avg_pool2d((pixels * 2 - 1).to(self.runtime.device), 8)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def half_mask() -> Any:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 24:56] = 255
    return mask


def unit(index: int = 0, **fields: Any) -> ControlNetUnit:
    """A unit with a picture of its own."""
    given: dict[str, Any] = {"model": "first", "image": picture(index), "mask": half_mask()}
    given |= {"resize_mode": ResizeMode.just_resize, "union_type": UnionType.depth}
    return ControlNetUnit(index=index, enabled=True, **{**given, **fields})


class Studio:
    """Control files of one family for one U-Net, and passes with them."""

    def __init__(self, folder: Path, config: UNetConfig, family: str = "controlnet") -> None:
        self.config = config
        self.folder = folder
        self._needed = {**EMBEDDED, **MASKED}.get(family, "")
        for name, seed in (("first", 2), ("second", 4)):
            FAMILIES[family][0](folder / f"{name}.safetensors", replace(config, in_channels=4), seed)

    def made(
        self,
        units: Sequence[ControlNetUnit],
        rows: Rows = ROWS["guidance"],
        card: Card | None = None,
        types: Types = Types(),
        steps: int = STEPS,
        settings: Mapping[str, Any] | None = None,
        control_device: str = "",
        **given: Any,
    ) -> Made:
        """A pass of `steps` denoiser steps. `given`: of the Generation; `is_hr_pass` makes it the hires pass.

        control_device: where the host puts the task "controlnet", if not where the U-Net is.
        """
        unet = tiny_unet(self.config).to(types.unet).to(memory_format=types.layout)
        unet.requires_grad_(False)  # as on the card: it changes how sums are made
        device = torch.device("cpu") if card is None else card.device
        if card is not None:
            card.module(unet)
        hires = bool(given.pop("is_hr_pass", False))
        sources = [picture(place + 10) for place in range(len(rows.conds))]
        place = torch.device(control_device or device)
        runtime = Runtime(place, types.net, base_weights(self.config), layout=layout_of(unet))
        generation = Generation(self.config, runtime, sources, **given, hires=hires)
        session = ControlSession(self._services(settings or {}), generation)
        with torch.no_grad():
            session.prepare([self._fitting(unit) for unit in units])
            return _passed(unet, self.config, session, rows, card, types, steps, hires)

    def _fitting(self, unit: ControlNetUnit) -> ControlNetUnit:
        spec = data_sheets()[unit.preprocessor]
        wrong = self._needed and spec.returns_image and not spec.model_free and not spec.keeps_alpha
        return replace(unit, preprocessor=self._needed) if wrong else unit

    def _services(self, settings: Mapping[str, Any]) -> Services:
        annotators: Any = Annotators()
        return Services(
            ModelLibrary(lambda: [self.folder]),
            annotators,
            PreprocessRunner(annotators, AnnotatorRuntime),
            ModelCache(discover(), lambda: 1 << 30),
            lambda key, default: settings.get(key, default),
        )


def _passed(
    unet: nn.Module,
    config: UNetConfig,
    session: ControlSession,
    rows: Rows,
    card: Card | None,
    types: Types,
    steps: int,
    hires: bool,
) -> Made:
    made, put = Made(), (lambda t: t) if card is None else card.tensor
    p = SimpleNamespace(is_hr_pass=hires)
    job = stray_job(p)
    job.session = session
    host: Any = A1111Host()
    host.unet, host.base_model = lambda: unet, lambda _: BaseModel(config, "tiny.safetensors")
    sampling = Sampling(host, job, p, lambda _job, _p, error: error, lambda _: None)
    sampler = SimpleNamespace(sampler_extra_args={"cond": SimpleNamespace(batch=[[0] * n for n in rows.conds])})
    sampling.start(put(torch.zeros(1, 4, SIZE // 8, SIZE // 8)))
    try:
        for number in range(steps):
            inputs = [None if t is None else put(t.to(types.unet)) for t in _inputs(config, rows, number)]
            denoiser = SimpleNamespace(step=number, total_steps=steps, inner_model=None, sampler=sampler)
            texts = [inputs[2][: sum(rows.conds)], inputs[2][sum(rows.conds) :]]
            if card is not None:
                card.restart()
            sampling.step(SimpleNamespace(x=inputs[0], text_cond=texts[0], text_uncond=texts[1], denoiser=denoiser))
            start = 0
            for count in rows.calls:
                output = unet(*(None if t is None else t[start : start + count] for t in inputs))
                made.outputs.append(output if card is None else card.host(output).clone())
                start += count
            if card is not None:
                made.events.append(list(card.events))
                made.kernels.append(dict(card.kernels))
        sampling.conclude()
    finally:
        sampling.close()
    return made


def _inputs(config: UNetConfig, rows: Rows, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """x, timesteps, context, y of all rows of a denoiser step: one latent a picture for all its prompts."""
    generator = torch.Generator().manual_seed(100 + number)
    images = rows.images
    latents = torch.randn(len(rows.conds), config.in_channels, SIZE // 8, SIZE // 8, generator=generator)
    timesteps = torch.full((len(images),), 999.0 - 301.3 * number)
    context = torch.randn(len(images), 7, config.context_dim, generator=generator)
    y = None
    if config.adm_channels is not None:
        y = torch.randn(len(images), config.adm_channels, generator=generator)
    return latents[images], timesteps, context, y
