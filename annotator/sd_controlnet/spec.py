"""What a preprocessor says of itself: the widgets, the API and the checks are made from it.

Standard library only: reading every specification must not cost the start of a WebUI anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .store import NetworkStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

DEFAULT_RESOLUTION = 512
FULL = "float32"
FLOAT16 = ("float16",)
"""`PreprocessorSpec.half` of networks that bear the 10 bits of float16 and not the 7 of bfloat16."""
Network = TypeVar("Network")


class AnnotatorError(Exception):
    """A preprocessor cannot do what it was asked. `found` and `remedy` complete the sentence for the user."""

    def __init__(self, problem: str, *, found: object = None, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.problem]
        if self.found is not None:
            parts.append(f"found: {self.found}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class Cancelled(AnnotatorError):
    """The user stopped the preprocessor between two of its stages."""


class OutOfRange(AnnotatorError):
    """A network's numbers left the range of the type of 16 bits that it computed in."""


@dataclass(frozen=True)
class Slider:
    """A number the user chooses. `default` stands in for what lies outside the range, as in the peers' API."""

    label: str
    minimum: float
    maximum: float
    step: float
    default: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.minimum <= self.default <= self.maximum or self.step <= 0 or not self.label:
            raise ValueError(f"slider {self.label!r} is not a range with a default inside: {self}")

    def resolve(self, value: float) -> float:
        """`value` if it lies in the range, else the default; -1 is how clients ask for the default."""
        return value if self.minimum <= value <= self.maximum else self.default


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file that a network needs, where it is looked for and where it comes from.

    name, folder: as sd-webui-controlnet saves it, `folder` below each of the runtime's weight folders. size: bytes,
    about. repo, path (`name` where empty), repo_type: on the Hugging Face hub; repo is empty where the file is not
    there, and `note` says then how to get it. sha256: where it was published, whole or its first digits; the hub's own
    record is checked after every download in any case.
    """

    name: str
    folder: str
    size: int
    licence: str
    repo: str = ""
    path: str = ""
    repo_type: str = "model"
    sha256: str = ""
    note: str = ""

    @property
    def source(self) -> str:
        """Where the file comes from, for a person to read."""
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        address = f"https://huggingface.co/{kind}{self.repo}/resolve/main/{self.path or self.name}"
        return address if self.repo else self.note


@dataclass(frozen=True)
class Library:
    """A Python package that a preprocessor runs on; looked for without importing it.

    module: what is imported. package: what is installed (`module` where empty). minimum: first version that works.
    below: first version that does not. why: completes "needed" where the name does not say it.
    """

    module: str
    package: str = ""
    minimum: str = ""
    below: str = ""
    why: str = ""

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        bounds = [f">={self.minimum}"] * bool(self.minimum) + [f"<{self.below}"] * bool(self.below)
        return (self.package or self.module) + ",".join(bounds)


def resolution_slider(default: int = DEFAULT_RESOLUTION) -> Slider:
    """The slider "Resolution": the short side, in pixels, at which a preprocessor looks at the picture."""
    return Slider("Resolution", 64, 2048, 8, default, "px")


@dataclass(frozen=True, kw_only=True)
class PreprocessorSpec:
    """One entry of the list of preprocessors.

    id: the name in infotext and API calls. label: the name in the page. aliases: what other tools call it.
    control_types: the groups of the page that list it. rank: higher stands further up; the first is the default.
    resolution: None where the picture's own size or a fixed one is used. sliders: threshold_a, threshold_b, ...
    effect: what must happen while or after the picture is sampled for the map to mean what its name promises
    ("tile_colorfix", "reference", ...); an engine that has no such effect must not offer the entry.
    effect_options: how, where entries with the same effect differ.
    """

    id: str
    label: str = ""
    aliases: tuple[str, ...] = ()
    control_types: tuple[str, ...] = ()
    rank: int = 0
    resolution: Slider | None = field(default_factory=resolution_slider)
    sliders: tuple[Slider, ...] = ()
    weights: tuple[WeightFile, ...] = ()
    """Every file the network reads; looked for when it is first run."""
    libraries: tuple[Library, ...] = ()
    """The entry is disabled where one of them is missing or has the wrong version."""
    accepts_mask: bool = False
    requires_mask: bool = False
    model_free: bool = False
    """No control model is loaded: the preprocessor itself acts on the sampling."""
    pictureless: bool = False
    """It needs no picture, and makes no map of one."""
    returns_image: bool = True
    """False: the result is an embedding, not a map."""
    embedding: str = ""
    """The kind of embedding that it gives, as control models name those that they read ("clip_h", "face_id", ...)."""
    by_model: bool = False
    """It stands for the entry that gives the kind of embedding which the unit's model reads."""
    hides_control_mode: bool = False
    soft_weights_in_hires: bool = False
    """The hires pass uses the soft ramp of layer weights even in Balanced."""
    scatters: bool = False
    """The map shows what there is in the picture and not where; its models may average control over positions."""
    face_points: bool = False
    """The map shows the five points of a face; its models hear who it is in place of the prompt."""
    shows: str = ""
    """What a meter compares two maps by: "lines", "depth", "normals", "segments" (colours are classes), "regions"
    (colours only keep them apart), "poses", "pictures", "colours" (without places), "embedding". Where it is empty, the
    control types say it."""
    reads_map: bool = False
    """It takes a drawing or a map, not a photograph: what it makes of a generated picture says nothing."""
    reads_dark_lines: bool = False
    """It turns dark lines on white into the white lines on black that models know, and does nothing else."""
    cacheable: bool = True
    """False: the result depends on the seed."""
    keeps_alpha: bool = False
    """The map has a fourth channel, 255 where to paint."""
    finds: str = ""
    """What the map shows, in words, where other entries find the same in their own way and may stand in for it."""
    fills_border: bool = False
    """It fills what is masked, and so the border that "Resize and Fill" adds: it is to see the picture with it."""
    within_host_mask: str = ""
    """The id of the entry that takes its place where the host itself paints within a mask and keeps the rest."""
    effect: str = ""
    effect_options: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    half: tuple[str, ...] = ()
    """The types of 16 bits in which the map stays within 1/255 of that in float32, as torch names them. In a runtime's
    other type the networks compute in float32."""
    full_because: str = ""
    """Why not in a type of 16 bits, as a clause; for entries with a network and an empty `half`."""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.id)
        if not self.id or self.id != self.id.strip():
            raise ValueError(f"a preprocessor's id must be a name, not {self.id!r}")
        if self.requires_mask and not self.accepts_mask:
            raise ValueError(f"{self.id}: a mask that is required must be accepted")

    @property
    def names(self) -> tuple[str, ...]:
        """Every name the entry answers to, each once, in lower case."""
        return tuple(dict.fromkeys(name.lower() for name in (self.id, self.label, *self.aliases)))

    def resolve_resolution(self, value: float) -> int:
        """The resolution that is used when `value` is asked for."""
        return DEFAULT_RESOLUTION if self.resolution is None else round(self.resolution.resolve(value))

    def resolve_params(self, *values: float) -> tuple[float, ...]:
        """The sliders' values that are used when `values` are asked for; what is missing is at its default."""
        padded = (*values, *(slider.default for slider in self.sliders[len(values) :]))
        return tuple(slider.resolve(value) for slider, value in zip(self.sliders, padded, strict=False))


@dataclass(frozen=True)
class Detection:
    """What a preprocessor found, where that is more than a map.

    map: (h, w, 3) uint8, or (h, w, 4) where the specification keeps alpha; None where an embedding is the result.
    pose: an OpenPose JSON object (people, animals, canvas_width, canvas_height). tensors: embeddings by name, torch
    tensors float32 on the processor. shown: (h, w, 3) uint8, what the user is shown of an embedding in place of a map.
    """

    map: Pixels | None = None
    pose: Mapping[str, Any] | None = None
    tensors: Mapping[str, Any] | None = None
    shown: Pixels | None = None


def _never() -> bool:
    return False


def _silent(_part: float) -> None:
    return None


def _nowhere() -> Path | None:
    return None


def _nothing() -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a host lends to preprocessors. Strings, so that torch is imported only by those that run a network.

    device, dtype: as `torch.device` and `torch` name them. clip_device: where CLIP's networks run, if elsewhere.
    The type is the one that networks compute in; a host's is changed by `computing` for each entry.
    weight_folders: searched in order. download_folder: where missing weights are put; None where the user has not
    allowed downloads. trusted: the sha256 of files with code that the user allows to run (see trust.py). cancelled:
    asked between stages. progress: told the part done, 0..1. networks: what is loaded.
    Two are equal where a detector made for one serves the other.
    """

    device: str = "cpu"
    dtype: str = FULL
    clip_device: str = ""
    weight_folders: tuple[Path, ...] = ()
    download_folder: Callable[[], Path | None] = field(default=_nowhere, compare=False)
    trusted: Callable[[], frozenset[str]] = field(default=_nothing, compare=False)
    cancelled: Callable[[], bool] = field(default=_never, compare=False)
    progress: Callable[[float], None] = field(default=_silent, compare=False)
    networks: NetworkStore = field(default_factory=NetworkStore, repr=False, compare=False)

    def stage(self, part: float) -> None:
        """Say that `part` (0..1) is done; raises `Cancelled` if the user wants no more."""
        if self.cancelled():
            raise Cancelled("the preprocessor was stopped")
        self.progress(part)

    def for_clip(self) -> Runtime:
        """The same for CLIP's networks, on their own device where they have one."""
        if not self.clip_device:
            return self
        return replace(self, device=self.clip_device, dtype=FULL if self.clip_device == "cpu" else self.dtype)

    def computing(self, spec: PreprocessorSpec) -> Runtime:
        """The same with the type in which the networks of `spec` are to compute."""
        return replace(self, dtype=self.dtype if self.dtype in spec.half else FULL)

    def network(self, key: str, make: Callable[[], Network]) -> Network:
        """The network called `key` on the device, made by `make` unless it is loaded in this type.

        `make` makes it on the CPU, unless it can only live on the device. Ask at every call: it may be unloaded since.
        """
        return self.networks.get(f"{key} ({self.dtype})", make, self.device)


class Detector(Protocol):
    """Turns a picture into a control map."""

    def __call__(
        self,
        image: Pixels,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels | Detection:
        """`image` (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) uint8; `mask` (H, W) uint8, 255 where to paint.

        `resolution` and `params` are taken as they are: `PreprocessorSpec.resolve_*` has checked them. Missing params
        are at their defaults. Returns (h, w, 3) uint8, or (h, w, 4) where the specification keeps alpha, contiguous and
        not sharing memory with `image`; or a `Detection` where there is more to tell. Raises `AnnotatorError`.
        """
        ...
