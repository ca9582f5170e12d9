"""What a kind of control model must offer, and the loaded checkpoint as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ..core.checkpoint import Checkpoint, no_checkpoint
from ..core.errors import BaseModelError, ModelFileError
from ..core.frames import Film
from ..core.hints import Hint
from ..core.image_prompt import ImagePrompt
from ..core.modes import ControlMode, PulidMode, UnionType
from ..core.residuals import Residuals
from ..core.sites import UNetSites
from ..core.step import Pass, Step
from ..loading.detect import KeyCondition
from ..nets.config import UNetConfig
from ..nets.residence import Residence

Weights = Mapping[str, Tensor]
CONTROLNET_SHARES: Mapping[str, float] = {"SD 1.x": 0.334, "SD 2.x": 0.334, "SDXL": 0.438}
"""`ControlFamily.shares` of what is as large as a ControlNet."""


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
    union_kinds: of control images that it must be told apart, 0 where there is nothing to tell. embeddings: see
    `ControlModel.embeddings`.
    """

    outputs: int
    made_for: str
    fits: Callable[[BaseModel], bool]
    union_kinds: int = 0
    embeddings: Sequence[str] = ()


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


@dataclass(frozen=True, eq=False)
class UnitSettings:
    """What a unit asks for besides its hints, as `bind` gets it for one pass."""

    unit: int
    """Its number, for errors."""
    base: BaseModel
    weight: float = 1.0
    """The largest of the pass, where a curve says it; see `SiteCall.weight` for that of a step."""
    mode: ControlMode = ControlMode.balanced
    pass_: Pass = Pass.base
    params: tuple[float, ...] = ()
    """The preprocessor's sliders."""
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """What the preprocessor's data sheet tells the control that it has of its own (`effect_options`)."""
    tensors: Sequence[Mapping[str, Tensor]] = ()
    """Embeddings by name where the preprocessor gives such in place of maps: one, or one an image of the batch.

    Those of several pictures in one unit lie one behind the other in the first dimension.
    """
    scattered: bool = False
    """The hint shows what there is in the picture and not where (shuffle)."""
    face_points: bool = False
    """The hint shows the five points of a face, as InstantID's ControlNet reads them."""
    union_type: UnionType = UnionType.unknown
    """What the user says that the map is."""
    shows: UnionType = UnionType.unknown
    """What the preprocessor's maps are, where that is known."""
    pulid_mode: PulidMode = PulidMode.fidelity
    image_prompt: ImagePrompt = field(default_factory=ImagePrompt)
    """How a picture acts as a prompt."""
    blur: int = 7
    """Pixels over which an inpainted region fades into its surroundings."""
    film: Film | None = None
    """The pictures of the batch are the frames of a film; the unit has a hint for each, or one for the first."""
    checkpoint: Callable[[], Checkpoint] = no_checkpoint
    """The noise schedule and VAE of the checkpoint in use, asked while binding only."""

    @property
    def sdxl(self) -> bool:
        """The checkpoint takes a pooled prompt, as those of SDXL do."""
        return self.base.config.adm_channels is not None


class BoundControl:
    """What one unit does in one pass; what a kind does not override, it does not do.

    Made before the sampling begins, when the VAE may run; owned by the session and dropped with the pass. Guidance
    range, weight, rows, region mask and one-unit-per-image are the session's business: every tensor handed over is of
    the rows in which the unit has a say, and what comes back is mixed in as far as the region mask says.
    """

    pooled = False
    """Residuals are averaged over their positions after masking; then only cond rows get control."""
    obeys_mode = True
    """"ControlNet is more important" leaves it the cond rows only. False where a kind has its own sense of the mode."""
    spatial = True
    """It knows where in the picture things are, so that a piece of the latent needs the piece of its hint."""
    piecewise = False
    """Its residuals can be had of pieces of its hint, for which it is bound anew; nothing else of it acts."""
    regional = True
    """It can act in a part of the picture. False: a region mask is refused, since nothing could keep to it."""
    stepwise = True
    """Its weight may differ from step to step and from row to row. False: what asks for that is refused."""
    among_pictures = False
    """It acts among the pictures of a batch: there is nothing to do for one, and "one unit a picture" spares it."""
    in_prompt = False
    """It is heard as the prompt is: also in a U-Net call that another control makes (`plain`), as in the peer."""
    in_layers = False
    """Its network computes while the U-Net's layers do, so that it must be on the device during the whole call."""

    def meet(self, others: Sequence[BoundControl]) -> None:
        """All units of the pass are bound; who works together with another one finds it here, itself included."""

    def attach(self, sites: UNetSites) -> None:
        """Asks for its places in the U-Net in use; again where the host swaps it."""

    def start_noise(self, noise: Tensor) -> Tensor:
        """The noise (B, 4, h, w) of variance 1 from which the pass starts, one row a picture."""
        return noise

    def condition(self, step: Step) -> Step:
        """The step with the context and y that the U-Net is to get for its rows. Longer contexts are made to fit."""
        return step

    def prepare(self, step: Step, plain: Callable[[Step], None]) -> None:
        """A call is about to be computed. `plain` runs the U-Net on a step, telling `watch`es of it; of the controls
        only those act that are `in_prompt`.
        """

    def residuals(self, step: Step) -> Residuals | None:
        """What is added for the rows of `step`, unweighted; as many outputs as the model says."""
        return None

    def joint(self, bounds: Sequence[BoundControl], shares: Sequence[float]) -> BoundControl | None:
        """One control that gives in one pass of the network what `bounds` give, of the same model; None if it cannot.

        shares: how strong each is beside the strongest, whose weight then counts for all. Itself is the first of them.
        """
        return None

    def predicted(self, step: Step, output: Tensor) -> Tensor:
        """The U-Net's prediction (B, 4, h, w) at `step`, changed; in float32 where it is.

        It is mixed with the given one as far as the weight says, 0 to 1.
        """
        return output

    def decoded(self, picture: Tensor, index: int) -> Tensor:
        """The decoded picture (3, H, W) in 0..1 of place `index` in its batch, changed."""
        return picture


class ControlModel(Protocol):
    """What a unit steers with: the loaded weights of a file, or what a preprocessor does by itself.

    It holds no unit settings, so units share it.
    """

    path: Path
    residence: Residence
    """Where its weights are. They are loaded into the computer's memory; a session brings them to the device."""

    outputs: int
    """How many layer weights it takes: one for each residual, or each layer in which it acts; 0 where it takes none."""

    ramp: Sequence[float]
    """Weights of "My prompt is more important", one an output; empty where they are those of ControlNets."""

    holds_base: bool
    """True where the base checkpoint's weights went into it at load, so that another checkpoint needs another load."""

    from_fp8: bool
    """True where the file has weights in float8, so that `Runtime.keeps_fp8` makes another model of it."""

    embeddings: Sequence[str]
    """The kinds of embeddings (see core.embeddings) that it takes in place of maps, the usual one first; empty where it
    takes maps. It takes those of several pictures in one unit together."""

    options: Collection[str]
    """What it reads of the `effect_options` of a preprocessor that has no effect of its own."""

    reusable: bool
    """Its network computes residuals at every step, which change little from one to the next: see `engine/reuse.py`."""

    def residual_bytes(self, rows: int, height: int, width: int) -> int:
        """What its residuals take of `rows` rows of a latent of that size, where they may be kept."""
        ...

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where it cannot control `base`."""
        ...

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundControl:
        """The model with one hint, or one for each image of the batch; costs nothing until the first call.

        Without hints where the preprocessor gives embeddings (`settings.tensors`).
        """
        ...


class PlainModel:
    """What most ControlModels are: no outputs that weigh by themselves, no base in the weights, which are widened from
    whatever the file has, and maps for hints.
    """

    outputs: int = 0
    ramp: Sequence[float] = ()
    holds_base: bool = False
    from_fp8: bool = False
    embeddings: Sequence[str] = ()
    options: Collection[str] = ()
    reusable: bool = False

    def residual_bytes(self, rows: int, height: int, width: int) -> int:
        """Nothing is kept."""
        del rows, height, width
        return 0


class OwnControl(PlainModel):
    """A ControlModel without a file: what a preprocessor does to the sampling by itself. Found as `EFFECT`."""

    path = Path("None")

    def __init__(
        self,
        id: str,
        bind: Callable[[Sequence[Hint], UnitSettings], BoundControl],
        check: Callable[[BaseModel], None] = lambda _base: None,
    ) -> None:
        """id: as the data sheets of preprocessors name it (`effect`). check: raises BaseModelError."""
        self.id = id
        self.residence = Residence(nn.Module())
        self._bind = bind
        self._check = check

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where it cannot control `base`."""
        self._check(base)

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundControl:
        """What it does in one pass."""
        return self._bind(hints, settings)


class ControlFamily(Protocol):
    """A kind of control model; stateless, one a file in this folder, found as `FAMILY`.

    It may also have `inspect(path, weights) -> Sheet`, which the page asks before anything is loaded.
    """

    id: str
    before: Sequence[str]
    """Ids of the families that must be asked later than this one."""

    shares: Mapping[str, float]
    """What it adds to the arithmetic of a step, by the checkpoint's kind (`BaseModel.kind`): counted in FLOPs at
    published sizes, what is computed once a pass left out. Nothing of a kind is next to nothing."""

    condition: KeyCondition
    """By which canonical keys (see loading.canonical) its files are known."""

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> ControlModel:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        ...


def check_base(path: Path, base: BaseModel, made_for: str, disagreement: str, kind: str = "a control model") -> None:
    """Raises BaseModelError where there is a `disagreement` between the file at `path` and `base`; "" is none.

    made_for: the checkpoints that the file controls, in words.
    """
    if disagreement:
        raise BaseModelError(
            f'"{path.name}" was made for {made_for} and cannot control {base.kind}',
            field="model",
            found=f'checkpoint "{base.title}" ({base.kind}); {disagreement}',
            remedy=f"choose {kind} for {base.kind}, or a checkpoint of {made_for}",
        )


Compared = tuple[str, object, object, bool]
"""What is compared, the file's, the checkpoint's, and whether they agree."""


def disagreements(*compared: Compared) -> str:
    """Those that do not agree, in words; "" where all do."""
    return "; ".join(
        f"{what} {_said(mine)}, the checkpoint's {_said(theirs)}" for what, mine, theirs, agree in compared if not agree
    )


def _said(value: object) -> str:
    return ", ".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else str(value)


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
