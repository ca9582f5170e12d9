"""reference: the U-Net looks at the unit's picture while it draws, without a control model.

As sd-webui-controlnet (scripts/hook.py, Lvmin Zhang 2023): before a step the picture, noised as far, goes through the
U-Net once ("write") and leaves self-attention inputs or feature statistics in banks, which the step proper reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.errors import HostError
from ..core.modes import ControlMode
from ..core.precision import computed_in
from ..core.rows import RowTensors
from ..core.step import Pass, Step
from .base import Effect, Setup, of_rows
from .placed import NoiseAhead, Placed

IDS = ("reference",)
_LEAST_VARIANCE = 1e-6
_SEED_AFTER = 1
"""The reference's noise is drawn with the job's seed and this, so that it is not the job's own noise again."""


class _Phase(Enum):
    idle = auto()
    write = auto()
    read = auto()


class Reference(Effect):
    """`weight` says how many layers take part, 0..2; style fidelity how little uncond rows see of the picture, 0..1.

    Control modes stand in for the fidelity as in the peer: "ControlNet is more important" means 1, "My prompt is more
    important" and the hires pass mean 0.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._latents = Placed(setup.latents())
        self._noise = NoiseAhead(setup.sampling.seed + _SEED_AFTER)
        self._fidelity = _fidelity(setup)
        self._phase = _Phase.idle
        self._unconds: tuple[int, ...] = ()
        self._kept = RowTensors()
        self._layers: list[_Attention | _Statistics] = []

    def attach(self, unet: nn.Module) -> Sequence[RemovableHandle]:
        self._layers = []
        if self._setup.options["attention"]:
            self._layers += _attentions(unet, self._setup.weight)
        if self._setup.options["adain"]:
            self._layers += _statistics(unet, self._setup.weight, self._setup.sdxl)
        return [handle for layer in self._layers for handle in layer.hook(self)]

    def prepare(self, unet: nn.Module, step: Step) -> None:
        latents = of_rows(self._latents.like(step.x), step)
        latents = latents.expand(step.batch, -1, -1, -1)
        noise = self._noise.next(latents.shape, step)
        x = self._setup.sampling.noised(latents.float(), step.timesteps, noise.float()).to(step.x)
        if step.x.shape[1] == 9:  # an inpainting checkpoint: nothing is to be painted, all is known
            x = torch.cat([x, torch.zeros_like(x[:, :1]), latents], dim=1)
        for layer in self._layers:
            layer.bank = None
        self._phase = _Phase.write
        try:
            # The forward itself: a call of the module would be taken for a step, by us and by other extensions.
            rest = {} if step.y is None else {"y": step.y}
            unet.forward(x, timesteps=step.timesteps, context=step.context, **rest)
        finally:
            self._phase = _Phase.idle
        self._unconds = tuple(row for row, cond in enumerate(step.is_cond) if not cond)
        self._kept = step.kept

    def before(self) -> None:
        self._phase = _Phase.read

    def after(self, step: Step, output: Tensor) -> Tensor:
        self._phase = _Phase.idle
        for layer in self._layers:
            layer.bank = None
        return output

    @property
    def writes(self) -> bool:
        """The reference is passing through."""
        return self._phase is _Phase.write

    @property
    def reads(self) -> bool:
        """The step proper is being computed."""
        return self._phase is _Phase.read

    def mixed(self, seen: Tensor, given: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
        """`seen` (B, ...), whose uncond rows are drawn back to `plain(those of given)` as far as the fidelity says."""
        if self._fidelity <= 1e-5 or not self._unconds:
            return seen
        kept, rows = self._kept, self._unconds
        mixed = seen.clone()
        kept.put(mixed, rows, torch.lerp(kept.of(seen, rows), plain(kept.of(given, rows)).to(seen), self._fidelity))
        return mixed


def _fidelity(setup: Setup) -> float:
    if setup.mode is ControlMode.control:
        return 1.0
    if setup.mode is not ControlMode.balanced or setup.pass_ is Pass.hires:
        return 0.0
    fidelity = min(max(setup.params[0], 0.0), 1.0)
    return fidelity**3 if setup.sdxl else fidelity


@dataclass(frozen=True, eq=False)
class _Bank:
    """A reference's tokens (B, N, C) at one self-attention, in the type in which it computes with them."""

    kept: Tensor
    version: int | None
    """How often they had been written to when they were kept; None where PyTorch does not count that."""

    @classmethod
    def of(cls, tokens: Tensor) -> _Bank:
        """Not copied: a norm has made them for this attention, which reads them only; `tokens` sees to that."""
        kept = tokens.detach().to(computed_in(tokens))
        return cls(kept, None if kept.is_inference() else kept._version)

    def tokens(self) -> Tensor:
        """The tokens. Raises HostError where somebody has written over them since."""
        if self.version is not None and self.kept._version != self.version:
            raise HostError(
                "what the U-Net's attention saw of the reference was written over",
                found="an attention that changes its input in place",
                remedy="switch off the extension or option that replaces the U-Net's attention",
            )
        return self.kept


@dataclass(eq=False)
class _Attention:
    """A self-attention whose tokens also attend to the reference's tokens."""

    module: nn.Module
    bank: _Bank | None = None

    def hook(self, owner: Reference) -> list[RemovableHandle]:
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tokens = cast("Tensor", args[0])
            if owner.writes:
                self.bank = _Bank.of(tokens)
            elif owner.reads and self.bank is not None:
                # Another reference's tokens may be there already.
                context = kwargs.get("context")
                bank = self.bank.tokens()
                seen = [(tokens if context is None else context).to(bank.dtype), bank]
                return args[:1], {**kwargs, "context": torch.cat(seen, dim=1)}
            return None

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if not (owner.reads and self.bank is not None):
                return None
            rest = {name: value for name, value in kwargs.items() if name != "context"}

            return owner.mixed(output, args[0], lambda tokens: module.forward(tokens, **rest))

        return [
            self.module.register_forward_pre_hook(before, with_kwargs=True),
            self.module.register_forward_hook(after, with_kwargs=True),
        ]


@dataclass(eq=False)
class _Statistics:
    """A block whose features take the mean and variance that the reference's features have (AdaIN)."""

    module: nn.Module
    bank: tuple[Tensor, Tensor] | None = None

    def hook(self, owner: Reference) -> list[RemovableHandle]:
        def after(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            if owner.writes:
                self.bank = _moments(output)
            elif owner.reads and self.bank is not None:
                mean, deviation = _moments(output)
                wanted_mean, wanted_deviation = self.bank
                styled = (output.float() - mean) / deviation * wanted_deviation + wanted_mean
                return owner.mixed(styled, output, lambda features: features).to(output.dtype)
            return None

        return [self.module.register_forward_hook(after)]


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each row, (B, C, 1, 1) float32: the variance passes float16."""
    variance, mean = torch.var_mean(features.float(), dim=(2, 3), keepdim=True, correction=0)
    return mean, variance.clamp(min=_LEAST_VARIANCE).sqrt()


def _attentions(unet: nn.Module, weight: float) -> Iterable[_Attention]:
    """The widest blocks' first: the i-th of n takes part where the weight exceeds i / n."""
    blocks = [cast(Any, module) for module in unet.modules() if hasattr(module, "attn1") and hasattr(module, "norm1")]
    blocks.sort(key=lambda block: -block.norm1.normalized_shape[0])
    return [_Attention(block.attn1) for place, block in enumerate(blocks) if weight > place / len(blocks)]


def _statistics(unet: nn.Module, weight: float, sdxl: bool) -> Iterable[_Statistics]:
    """The middle always; deep input blocks first, deep output blocks too. A weight of 2 takes all.

    The blocks are those of SD 1.x and SDXL; of a smaller U-Net, those it has.
    """
    blocks = cast(Any, unet)
    count = len(blocks.input_blocks)
    inputs = [i for i in ((4, 5, 7, 8) if sdxl else (4, 5, 7, 8, 10, 11)) if i < count]
    outputs = range(min(6 if sdxl else 8, count))
    thresholds = [(blocks.middle_block, 0.0)]
    thresholds += [(blocks.input_blocks[i], 2.0 * (1.0 - place / len(inputs))) for place, i in enumerate(inputs)]
    thresholds += [(blocks.output_blocks[i], 2.0 * place / len(outputs)) for place, i in enumerate(outputs)]
    return [_Statistics(block) for block, threshold in thresholds if weight > threshold]


EFFECT = Reference
