"""What every layer knows of preprocessors: the one border to `annotator/`, which it imports nothing of.

The annotator's own classes (its spec.py, registry.py, weights.py) have these shapes; so have those that other
extensions register.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from .images import Pixels

_Network = TypeVar("_Network")


class Slider(Protocol):
    """A number that a preprocessor lets the user choose; `default` stands in for what lies outside the range."""

    @property
    def label(self) -> str: ...
    @property
    def minimum(self) -> float: ...
    @property
    def maximum(self) -> float: ...
    @property
    def step(self) -> float: ...
    @property
    def default(self) -> float: ...
    @property
    def unit(self) -> str: ...


class WeightFile(Protocol):
    """A file that a preprocessor's network reads. size: bytes, about."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def licence(self) -> str: ...
    @property
    def repo(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def source(self) -> str: ...


class PreprocessorSpec(Protocol):
    """A preprocessor's data sheet; what its fields mean is said in annotator/sd_controlnet/spec.py."""

    @property
    def id(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def aliases(self) -> Sequence[str]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def control_types(self) -> Sequence[str]: ...
    @property
    def rank(self) -> int: ...
    @property
    def finds(self) -> str: ...
    @property
    def resolution(self) -> Slider | None: ...
    @property
    def sliders(self) -> Sequence[Slider]: ...
    @property
    def weights(self) -> Sequence[WeightFile]: ...
    @property
    def accepts_mask(self) -> bool: ...
    @property
    def requires_mask(self) -> bool: ...
    @property
    def model_free(self) -> bool: ...
    @property
    def pictureless(self) -> bool: ...
    @property
    def returns_image(self) -> bool: ...
    @property
    def embedding(self) -> str: ...
    @property
    def by_model(self) -> bool: ...
    @property
    def hides_control_mode(self) -> bool: ...
    @property
    def soft_weights_in_hires(self) -> bool: ...
    @property
    def scatters(self) -> bool: ...
    @property
    def face_points(self) -> bool: ...
    @property
    def shows(self) -> str: ...
    @property
    def reads_map(self) -> bool: ...
    @property
    def reads_dark_lines(self) -> bool: ...
    @property
    def cacheable(self) -> bool: ...
    @property
    def fills_border(self) -> bool: ...
    @property
    def within_host_mask(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def effect_options(self) -> Mapping[str, object]: ...


class Detection(Protocol):
    """What a preprocessor found: a map (h, w, 3 or 4) uint8, with a pose in OpenPose JSON; or embeddings by name, and
    what the user is shown of them, (h, w, 3) uint8."""

    @property
    def map(self) -> Pixels | None: ...
    @property
    def pose(self) -> Mapping[str, Any] | None: ...
    @property
    def tensors(self) -> Mapping[str, Any] | None: ...
    @property
    def shown(self) -> Pixels | None: ...


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
        """`image` (H, W, 3) uint8 RGB; `mask` (H, W) uint8, 255 where to paint."""
        ...


class Networks(Protocol):
    """The networks that preprocessors have loaded."""

    def get(self, key: str, make: Callable[[], _Network], device: str = "cpu") -> _Network:
        """The network of this key on `device`, made now if it is not there."""
        ...

    def clear(self) -> None:
        """Free them."""
        ...

    def put_away(self) -> None:
        """None of them is on the device any more."""
        ...


class Runtime(Protocol):
    """What a host lends to preprocessors: a dataclass, two of which are equal where one detector serves both."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def device(self) -> str: ...
    @property
    def weight_folders(self) -> Sequence[Path]: ...
    @property
    def networks(self) -> Networks: ...


class Entry(Protocol):
    """A preprocessor that can run. `load` may take long and memory."""

    @property
    def spec(self) -> PreprocessorSpec: ...
    @property
    def load(self) -> Callable[[Any], Detector]: ...


class Disabled(Protocol):
    """A preprocessor that is known and cannot run here; `reason` is a clause. `spec` is None where nothing has one."""

    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def spec(self) -> PreprocessorSpec | None: ...


class Annotators(Protocol):
    """The registry of preprocessors; it raises KeyError for names it does not know."""

    def get(self, name: str) -> Entry:
        """By id, label or alias."""
        ...

    def __contains__(self, name: object) -> bool: ...

    def register_third_party(self, peer: Any) -> None:
        """Add a preprocessor that another extension made for sd-webui-controlnet."""
        ...

    @property
    def entries(self) -> Iterable[Entry]:
        """All that can run."""
        ...

    @property
    def disabled(self) -> Mapping[str, Disabled]:
        """By id, all that are known and cannot."""
        ...


class WeightStore(Protocol):
    """Where the files of preprocessors lie and come from; its own errors have `problem`, `found` and `remedy`."""

    def existing_file(self, weight: Any, folders: tuple[Path, ...]) -> Path | None:
        """The file of a `WeightFile` in the first of `folders` that has it."""
        ...

    def download(
        self, weight: Any, folder: Path, *, progress: Callable[[float], None], cancelled: Callable[[], bool]
    ) -> Path:
        """Brings the file of a `WeightFile` into `folder`."""
        ...
