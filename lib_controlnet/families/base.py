"""What a kind of control model must offer, and the loaded checkpoint as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import ModelFileError
from ..core.hints import Hint
from ..core.modes import UnionType
from ..core.residuals import Residuals
from ..core.step import Step
from ..loading.detect import KeyCondition
from ..nets.config import UNetConfig
from ..nets.residence import Residence

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class BaseModel:
    """The checkpoint in use: its U-Net's architecture and its title for messages."""

    config: UNetConfig
    title: str

    @property
    def kind(self) -> str:
        """Its architecture in the field's words."""
        return describe_config(self.config)


@dataclass(frozen=True)
class Sheet:
    """What the names and shapes in a file tell before it is loaded.

    outputs: number of residuals. made_for: the checkpoints it controls, in words. fits: whether it controls one.
    union_kinds: of control images that it must be told apart, 0 where there is nothing to tell.
    """

    outputs: int
    made_for: str
    fits: Callable[[BaseModel], bool]
    union_kinds: int = 0


@dataclass(frozen=True)
class Runtime:
    """Where and how a control model is to run; passed in, never global."""

    device: torch.device
    dtype: torch.dtype
    base_weights: Callable[[], Weights] | None = None
    """The U-Net's state dict, for files that hold differences to it."""
    base_rounded: bool = False
    """Those weights are in float8, and no better ones are known."""
    keeps_fp8: bool = False
    """Weights that a file has in float8 stay so in memory, and each layer is widened when it computes."""
    short: bool = False
    """The host itself is short of the device's memory: control models leave it before a picture is decoded."""
    low_vram: bool = False
    """The host keeps as little on the device as it can: every unit is as one with Low VRAM."""
    reserve: Callable[[int], None] | None = None
    """Asks the host to make room for that many bytes on the device, where it can."""
    layout: torch.memory_format = torch.contiguous_format
    """Of the weights of convolutions, which their results take: the U-Net's, so that control is added as it lies."""

    def needed_base(self, path: Path) -> Weights:
        """The base's weights, which the file at `path` is of no use without. Raises ModelFileError without them."""
        if self.base_weights is None:
            raise ModelFileError(
                "the file holds changes to a base U-Net, and no checkpoint is loaded to add them to",
                field="model",
                found=path.name,
                remedy="load the checkpoint first",
            )
        return self.base_weights()


@dataclass(frozen=True)
class BindOptions:
    """The settings of a unit that a family may need besides its hint."""

    unit: int
    scattered: bool = False
    """The hint shows what there is in the picture and not where (shuffle)."""
    union_type: UnionType = UnionType.unknown


class BoundControl(Protocol):
    """A control model with one unit's hint for one pass; owned by the session and dropped with it."""

    pooled: bool
    """True where residuals are averaged over their positions after masking; then only cond rows get control."""

    def control(self, step: Step) -> Residuals:
        """Residuals for the rows of `step`, unweighted."""
        ...


class ControlModel(Protocol):
    """Loaded weights of one file; holds no unit settings, so units share it."""

    path: Path
    residence: Residence
    """Where its weights are. They are loaded into the computer's memory; a session brings them to the device."""

    outputs: int
    """Number of residuals it gives, the length of a list of layer weights."""

    ramp: Sequence[float]
    """Weights of "My prompt is more important", one a residual; empty where they are those of ControlNets."""

    holds_base: bool
    """True where the base checkpoint's weights went into it at load, so that another checkpoint needs another load."""

    from_fp8: bool
    """True where the file has weights in float8, so that `Runtime.keeps_fp8` makes another model of it."""

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where it cannot control `base`."""
        ...

    def bind(self, hints: Sequence[Hint], options: BindOptions) -> BoundControl:
        """The model with one hint, or one for each image of the batch; costs nothing until the first `control`."""
        ...


class ControlFamily(Protocol):
    """A kind of control model; stateless, one a file in this folder, found as `FAMILY`.

    It may also have `inspect(path, weights) -> Sheet`, which the page asks before anything is loaded.
    """

    id: str
    before: Sequence[str]
    """Ids of the families that must be asked later than this one."""

    condition: KeyCondition
    """By which canonical keys (see loading.canonical) its files are known."""

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> ControlModel:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        ...


def describe_config(config: UNetConfig) -> str:
    """The architecture in the field's words, e.g. "SD 1.x"."""
    if config.adm_channels and config.context_dim == 2048:
        return "SDXL"
    if config.adm_channels == 2816 and config.context_dim == 0:
        return "SDXL"  # a control model without transformers
    if config.adm_channels and config.context_dim == 1280:
        return "SDXL refiner"
    if config.model_channels == 320 and config.context_dim == 768:
        return "SD 1.x"
    if config.model_channels == 320 and config.context_dim == 1024:
        return "SD 2.x"
    text = f"with a text width of {config.context_dim}" if config.context_dim else "with any text"
    return f"a U-Net of {config.model_channels} channels {text}"
