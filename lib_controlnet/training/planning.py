"""What a training will take of a card's memory, counted before it begins, and what to change where that is too much."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from ..engine.device_memory import GIB, total_bytes
from ..loading.lazy import outlines
from ..loading.reader import read_weights
from ..loading.whole import unet_of
from ..nets.config import UNetConfig
from ..nets.unet import UNetModel
from .average import MovingAverage
from .base import Autoencoder, autoencoder_sizes
from .chance import Draw
from .config import TrainConfig
from .controlled import ControlledUNet
from .counting import PeakCounter
from .dataset import Batch
from .kinds import Control, kind_named
from .noise import NoiseSchedule
from .optimizer import make_optimizer
from .options import TrainOptions
from .reward import REWARDS, Reward
from .room import MOST_AT_ONCE, SHARE, count_sampling, count_vae, hint_shape
from .text import TEXT_KEYS
from .trainer import diffusion_loss, set_precision

_TOKENS, _TEXTS_AT_ONCE = 77, 8
_OVERHEAD = {"cuda": 600 << 20}
"""What the driver and PyTorch's kernels take of a card by themselves."""
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """Bytes on the device while pictures are encoded, while a step is made, and while samples are drawn; `available` of
    it. `change`: the cheapest change of settings with which all fits, empty where it does or none is known."""

    encode: int
    step: int
    look: int
    available: int
    device: str
    change: Mapping[str, Any]
    changed: Mapping[str, int]

    @property
    def fits(self) -> bool:
        return max(self.encode, self.step, self.look) <= self.available

    def as_json(self) -> dict[str, Any]:
        return {
            "encode_peak_memory": self.encode,
            "step_peak_memory": self.step,
            "look_peak_memory": self.look,
            "available_memory": self.available,
            "device": self.device,
            "fits": self.fits,
            "change": dict(self.change),
            "changed": dict(self.changed),
        }

    def __str__(self) -> str:
        parts = [f"{name} {value / GIB:.2f} GiB" for name, value in (
            ("encoding", self.encode), ("a step", self.step), ("samples", self.look),
        )]  # fmt: skip
        text = f"memory on {self.device}: {', '.join(parts)}, of {self.available / GIB:.2f} GiB"
        if self.fits:
            return f"{text}; it fits"
        if not self.change:
            return f"{text}; it does not fit, and no change of settings that is known makes it fit"
        settings = ", ".join(f"train.{name} = {_toml(value)}" for name, value in self.change.items())
        most = max(self.changed.values()) / GIB
        return f"{text}; it does not fit. With {settings} it does: {most:.2f} GiB"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else f"{value}"


def plan(config: TrainConfig, memory: int | None = None) -> Plan:
    """Count for the device that a training would use, or for a card of `memory` bytes. Nothing is computed and no
    weights are read, so this takes seconds. Raises ModelFileError or TrainingError for a checkpoint that is of no use.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    if memory is not None:
        device = torch.device("cpu") if device.type == "cpu" else device
    total = memory or total_bytes(device) or psutil.virtual_memory().total
    named = "a card" if memory is not None else device.type
    available = max(0, total - (_OVERHEAD["cuda"] if named in ("a card", "cuda") else 0))
    sizes = _Sizes(config, shared=named == "cpu")
    found = sizes.peaks(config.train, available)
    change: dict[str, Any] = {}
    changed: dict[str, int] = {}
    if max(found.values()) > available:
        for candidate in _cheaper(config.train):
            options = dataclasses.replace(config.train, **candidate)
            changed = sizes.peaks(options, available)
            if max(changed.values()) <= available:
                change = candidate
                break
    return Plan(found["encode"], found["step"], found["look"], available, named, change, changed if change else {})


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _cheaper(options: TrainOptions) -> Iterator[dict[str, Any]]:
    """Changes that save memory, the least harmful first; each adds to those before."""
    made: dict[str, Any] = {}
    if options.precision == "no":
        made |= {"precision": "bf16"}
        yield dict(made)
    if not options.checkpointing:
        made |= {"checkpointing": True}
        yield dict(made)
    batch, accumulation = options.batch_size, options.accumulation
    while batch > 1:
        accumulation, batch = accumulation * 2, batch // 2
        made |= {"batch_size": batch, "accumulation": accumulation}
        if batch & (batch - 1) == 0:
            yield dict(made)
    if options.average_decay:
        made |= {"average_decay": 0.0}
        yield dict(made)
    if options.base_weights == "whole" and options.sd_locked:
        made |= {"base_weights": "fp8"}
        yield dict(made)
    if options.optimizer == "adamw" and _has_eight_bit():
        yield {**made, "optimizer": "adamw8bit"}
    small = {"optimizer": "adafactor", "precision": "bf16"}
    yield {**made, **small}
    yield {**made, **small, "accumulation": 1, "clip_norm": 0.0, "fused_backward": True}
    yield {**made, **small, "accumulation": 1, "clip_norm": 0.0, "fused_backward": True, "weights": "bf16"}


def _has_eight_bit() -> bool:
    import importlib.util

    return importlib.util.find_spec("bitsandbytes") is not None


class _Sizes:
    """The networks of a configuration without content. `shared`: there is one memory, in which everything lies."""

    def __init__(self, config: TrainConfig, shared: bool) -> None:
        self._config, self._shared = config, shared
        file = read_weights(config.base.checkpoint, shapes_only=True)
        self._unet = UNetConfig.from_weights(outlines(unet_of(file.weights, config.base.checkpoint, "base.checkpoint")))
        vae = file if config.base.vae is None else read_weights(config.base.vae, shapes_only=True)
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        with torch.device("meta"):
            model: Any = AutoencoderKL(**autoencoder_sizes(vae)[1])
        self._autoencoder = Autoencoder(model, 1.0)
        text = {key: value for key, value in file.weights.items() if key.startswith(TEXT_KEYS)}
        self._text = sum(value.numel() for value in text.values() if value.is_floating_point()) * 4
        side = config.data.resolution
        self._size = side, side
        self._known: dict[Any, int] = {}
        self._reward: Reward | None = None

    def peaks(self, options: TrainOptions, available: int) -> dict[str, int]:
        """encode, step, look -> bytes."""
        held, step = self._step(options)
        return {"encode": self._encode(options, available), "step": step, "look": self._look(options, held, available)}

    def _vae_dtype(self, options: TrainOptions) -> torch.dtype | None:
        deep = self._unet.adm_channels is not None
        return None if options.precision == "fp16" and deep else _DTYPES.get(options.precision)

    def _encode(self, options: TrainOptions, available: int) -> int:
        dtype, vae = self._vae_dtype(options), _bytes(self._autoencoder.model)
        each = max(self._vae("encode", dtype), self._vae("decode", dtype))
        beside = self._unet_bytes() + self._text if self._shared else 0
        count = _at_once(available - beside - vae, each)
        return beside + vae + max(count * self._vae("encode", dtype), 0 if self._shared else self._text - vae)

    def _look(self, options: TrainOptions, held: int, available: int) -> int:
        dtype = _DTYPES.get(options.precision)
        vae_dtype, vae = self._vae_dtype(options), _bytes(self._autoencoder.model)
        beside = held + (vae + self._text if self._shared else 0)
        key = "sampling", dtype, options.base_weights
        if key not in self._known:
            unet, control = self._networks()
            set_precision(ControlledUNet(unet, control), options)
            self._known[key] = count_sampling(unet, control, self._size, dtype)
        wanted = max(self._config.data.held_out, 1)
        drawn = min(wanted, _at_once(available - beside, self._known[key])) * self._known[key]
        each = max(self._vae("encode", vae_dtype), self._vae("decode", vae_dtype))
        decoding = (0 if self._shared else vae) + min(wanted, _at_once(available - beside, each)) * self._vae(
            "decode", vae_dtype
        )
        return beside + (max(drawn, decoding) if self._config.samples.every else 0)

    def _vae(self, way: str, dtype: torch.dtype | None) -> int:
        if (way, dtype) not in self._known:
            self._known[way, dtype] = count_vae(self._autoencoder, way, self._size, dtype)
        return self._known[way, dtype]

    def _unet_bytes(self) -> int:
        if "unet" not in self._known:
            with torch.device("meta"):
                self._known["unet"] = _bytes(UNetModel(self._unet))
        return self._known["unet"]

    def _networks(self) -> tuple[UNetModel, Control]:
        with torch.device("meta"):
            unet = UNetModel(self._unet)
            return unet, kind_named(self._config.control.kind).new(unet, self._config)

    def _step(self, options: TrainOptions) -> tuple[int, int]:
        """(held between steps, peak of a step)."""
        beside = _bytes(self._autoencoder.model) + self._text if self._shared else 0
        unet, control = self._networks()
        model = ControlledUNet(unet, control, train_decoder=not options.sd_locked)
        set_precision(model, options)
        if options.checkpointing:
            unet.use_checkpointing()
            control.use_checkpointing()
        decoder = copy.deepcopy(self._autoencoder) if options.reward else None
        with FakeTensorMode():
            with_content(model)
            self._reward = None if decoder is None else _every_row(self._config, decoder)
            held, peak = self._count_step(model, options)
        return held + beside, peak + beside

    def _count_step(self, model: ControlledUNet, options: TrainOptions) -> tuple[int, int]:
        trained = [*model.control.trained(), *model.decoder_parameters()]
        counter = PeakCounter()
        with counter:
            counter.hold(model, *([] if self._reward is None else [self._reward.network]))
            optimizer = _optimizer(model, options)
            average = MovingAverage(trained, options.average_decay) if options.average_decay else None
            _states(optimizer, [weight for weight in trained if weight.requires_grad], options.fused_backward)
            self._pass(model, options).backward()
            if options.clip_norm:
                torch.nn.utils.clip_grad_norm_([w for w in trained if w.grad is not None], options.clip_norm)
            optimizer.step()
            if average is not None:
                average.update()
            optimizer.zero_grad(set_to_none=True)
            held = counter.now
        return held, counter.peak

    def _pass(self, model: ControlledUNet, options: TrainOptions) -> Tensor:
        count, (width, height) = options.batch_size, self._size
        context, adm = self._unet.context_dim, self._unet.adm_channels
        y = None if adm is None else torch.empty(count, adm)
        batch = Batch(
            torch.empty(count, 4, height // 8, width // 8), torch.empty(count, _TOKENS, context),
            torch.empty(1, _TOKENS, context), torch.empty(count, *hint_shape(model.control, self._size)), y, y,
        )  # fmt: skip
        chance = Draw(
            torch.zeros(count, dtype=torch.long), torch.empty_like(batch.latents), torch.zeros(count, dtype=torch.bool),
            torch.full((count,), 1 / count),
        )  # fmt: skip
        dtype = _DTYPES.get(options.precision)

        def forward(*inputs: Any) -> Tensor:
            # The counted kinds are those of the processor; fp16 has bf16's sizes.
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
                return model(*inputs).float()

        noise = NoiseSchedule.scaled_linear()
        return diffusion_loss(forward, noise, options, batch, chance, self._reward) / options.accumulation


class _EveryRow(Reward):
    """Counts as if all rows of a batch had late timesteps, as may happen."""

    def rows(self, timesteps: Tensor) -> list[int]:
        return list(range(len(timesteps)))


def _every_row(config: TrainConfig, autoencoder: Autoencoder) -> Reward:
    with_content(autoencoder.model)
    autoencoder.model.requires_grad_(False)
    return _EveryRow(autoencoder, REWARDS["canny"], (), config.train.reward, 1)


def with_content(network: torch.nn.Module) -> None:
    """Weights that say of themselves where they are, instead of those on the meta device, where other kernels are
    chosen. One that several modules share stays one."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None and id(weight) not in made:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                made[id(weight)] = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
            if weight is not None:
                module._parameters[name] = made[id(weight)]


def _optimizer(model: ControlledUNet, options: TrainOptions) -> Any:
    if options.optimizer == "adamw8bit":
        return _EightBit(model.control.trained())
    return make_optimizer(model, options)


def _states(optimizer: torch.optim.Optimizer, weights: Sequence[torch.nn.Parameter], one_by_one: bool) -> None:
    """What the optimizer keeps from its first step on; `one_by_one`: without all gradients at once."""
    for some in ([weight] for weight in weights) if one_by_one else (weights,):
        for weight in some:
            weight.grad = torch.empty_like(weight)
        optimizer.step()
        for weight in some:
            weight.grad = None


class _EightBit(torch.optim.Optimizer):
    """What bitsandbytes' AdamW holds: two bytes a weight, and two floats for 256."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None and not self.state[weight]:
                self.state[weight] = {
                    "moments": torch.empty(2 * weight.numel(), dtype=torch.uint8),
                    "scales": torch.empty(2 * (-(-weight.numel() // 256))),
                }


def _at_once(free: int, each: int) -> int:
    return max(1, min(MOST_AT_ONCE, int(free * SHARE) // max(each, 1)))


def _bytes(network: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
