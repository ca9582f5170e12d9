"""`Preprocessor` and `PreprocessorParameter` as other extensions derive from them and register with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from ..engine.preprocess import Annotators


@dataclass
class PreprocessorParameter:
    """A slider; the defaults are the peers'."""

    label: str = "EMPTY_LABEL"
    minimum: float = 0.0
    maximum: float = 1.0
    step: float = 0.01
    value: float = 0.5
    visible: bool = True


class Result(NamedTuple):
    """What a preprocessor may return instead of a map alone."""

    value: Any
    display_images: list[Any]


@dataclass(eq=False)
class Preprocessor(ABC):
    """Base of a third party's preprocessor: it sets these attributes and has `__call__`.

    `__call__(input_image, resolution, slider_1, slider_2, slider_3, input_mask, low_vram, json_pose_callback)` takes
    (H, W, 3) uint8 RGB, with the mask as a fourth channel where there is one, and returns a map of that kind, an
    embedding where `returns_image` is False, or a `Result`.
    """

    name: str
    _label: str | None = None
    tags: list[str] = field(default_factory=list)
    slider_resolution: ClassVar[PreprocessorParameter] = PreprocessorParameter("Resolution", 64, 2048, 8, 512)
    slider_1: ClassVar[PreprocessorParameter] = PreprocessorParameter(visible=False)
    slider_2: ClassVar[PreprocessorParameter] = PreprocessorParameter(visible=False)
    slider_3: ClassVar[PreprocessorParameter] = PreprocessorParameter(visible=False)
    returns_image: bool = True
    show_control_mode: ClassVar[bool] = True
    do_not_need_model: ClassVar[bool] = False
    sorting_priority: ClassVar[int] = 0
    accepts_mask: bool = False
    requires_mask: bool = False
    use_soft_projection_in_hr_fix: ClassVar[bool] = False
    model: Any = None
    preprocessor_deps: list[str] = field(default_factory=list)

    Result: ClassVar[type[Result]] = Result

    @property
    def label(self) -> str:
        """The name in the page."""
        return self.name if self._label is None else self._label

    @abstractmethod
    def __call__(self, input_image: Any, resolution: int, *args: Any, **kwargs: Any) -> Any:
        """The map of a picture."""

    def unload(self) -> bool:
        """Free the memory of `model`, where it is one that can be moved; whether there was one."""
        if hasattr(self.model, "unload_model"):
            self.model.unload_model()
        elif hasattr(self.model, "to"):
            self.model.to("cpu")
        else:
            return False
        return True


def bound_to(annotators: Annotators) -> type[Preprocessor]:
    """The class, registering with these annotators."""

    class BoundPreprocessor(Preprocessor):
        __doc__ = Preprocessor.__doc__

        @classmethod
        def add_supported_preprocessor(cls, p: Preprocessor) -> None:
            """Offer `p` in the page and the API. Raises an error if one of its names is taken."""
            annotators.register_third_party(p)

        @classmethod
        def get_preprocessor(cls, name: str) -> Any:
            """The specification known under this name or label; None where nothing is."""
            try:
                return annotators.get(name).spec
            except KeyError:
                return None

    BoundPreprocessor.__name__ = BoundPreprocessor.__qualname__ = "Preprocessor"
    return BoundPreprocessor
