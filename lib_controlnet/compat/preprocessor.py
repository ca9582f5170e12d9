"""`Preprocessor` and `PreprocessorParameter`: what other extensions derive from, register, and look up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from ..core.control_types import default_preprocessor, preprocessors_of, type_names
from ..engine.defaults import absent, deciding_model
from ..engine.services import Services


@dataclass
class PreprocessorParameter:
    """A slider; the defaults are the peers'."""

    label: str = "EMPTY_LABEL"
    minimum: float = 0.0
    maximum: float = 1.0
    step: float = 0.01
    value: float = 0.5
    visible: bool = True

    @property
    def gradio_update_kwargs(self) -> dict[str, Any]:
        """What `gr.update` needs to show it."""
        return dict(vars(self))

    @property
    def api_json(self) -> dict[str, Any]:
        """As in the route `module_list`."""
        return {"name": self.label, "value": self.value, "min": self.minimum, "max": self.maximum, "step": self.step}


class Result(NamedTuple):
    """What a preprocessor may return instead of a map alone."""

    value: Any
    display_images: list[Any]


class Live:
    """A class attribute that is asked for anew each time; an instance may have its own instead."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask

    def __get__(self, _instance: Any, _owner: Any = None) -> Any:
        return self._ask()


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
    device: ClassVar[Any] = "cpu"
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

    def cached_call(self, input_image: Any, *args: Any, **kwargs: Any) -> Result:
        """The map, and what may be shown of it."""
        found = self(input_image, *args, **kwargs)
        if isinstance(found, Result):
            return found
        return Result(found, [found if self.returns_image else input_image])

    def unload(self) -> bool:
        """Free the memory of `model`, where it is one that can be moved; whether there was one."""
        if hasattr(self.model, "unload_model"):
            self.model.unload_model()
        elif hasattr(self.model, "to"):
            self.model.to("cpu")
        else:
            return False
        return True


def detect(services: Services, name: str, image: Any, resolution: float, a: Any, b: Any, mask: Any = None) -> Any:
    """(map or embeddings by name, is it a map) of a picture (H, W[, 3|4]); negative numbers mean the default."""
    pixels, inner = _parts(image)
    drawn = inner if mask is None else _parts(mask)[0][:, :, 0]
    size, first, second = (-1 if value is None or value < 0 else value for value in (resolution, a, b))
    result = services.preprocess.run(name, pixels, drawn, resolution=int(size), threshold_a=first, threshold_b=second)
    if result.spec.returns_image:
        return result.map.copy(), True
    return result.found.tensors, False


def three_channels(image: Any) -> Any:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 -> (H, W, 3); transparent parts become white (`HWC3`)."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise TypeError(f"a picture is (H, W) or (H, W, 1, 3 or 4) uint8, not {array.shape} {array.dtype}")
    array = array[:, :, None] if array.ndim == 2 else array
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 3:
        return array
    alpha = array[:, :, 3:].astype(np.float32) / 255.0
    return (array[:, :, :3].astype(np.float32) * alpha + 255.0 * (1.0 - alpha)).clip(0, 255).astype(np.uint8)


def _parts(image: Any) -> tuple[Any, Any]:
    """A picture and the mask in its fourth channel, which is the peers' place for it."""
    array = np.ascontiguousarray(image)
    if array.ndim == 3 and array.shape[2] == 4:
        return np.ascontiguousarray(array[:, :, :3]), np.ascontiguousarray(array[:, :, 3])
    return np.ascontiguousarray(three_channels(array)), None


class KnownPreprocessor(Preprocessor):
    """One of the registered preprocessors under the peers' attributes."""

    def __init__(self, services: Services, spec: Any) -> None:
        super().__init__(spec.id, spec.label, list(spec.control_types), bool(spec.returns_image))
        self._services = services
        self.id = spec.id
        sliders = [*(_parameter(slider) for slider in spec.sliders), *(_parameter(None) for _ in range(3))]
        vars(self).update(
            accepts_mask=spec.accepts_mask,
            requires_mask=spec.requires_mask,
            do_not_need_model=spec.model_free,
            show_control_mode=not getattr(spec, "hides_control_mode", False),
            sorting_priority=getattr(spec, "rank", 0),
            slider_resolution=_parameter(spec.resolution),
            **{f"slider_{number}": slider for number, slider in enumerate(sliders[:3], 1)},
        )

    def __call__(
        self,
        input_image: Any,
        resolution: int = -1,
        slider_1: Any = None,
        slider_2: Any = None,
        slider_3: Any = None,
        input_mask: Any = None,
        **_kwargs: Any,
    ) -> Any:
        """The map of a picture. Raises PreprocessorError."""
        return detect(self._services, self.id, input_image, resolution, slider_1, slider_2, input_mask)[0]

    def unload(self) -> bool:
        """Free the memory of all networks; there is no telling whose they are."""
        self._services.preprocess.unload()
        return True


def _parameter(slider: Any) -> PreprocessorParameter:
    if slider is None:
        return PreprocessorParameter(visible=False)
    return PreprocessorParameter(slider.label, slider.minimum, slider.maximum, slider.step, slider.default)


class Lookup:
    """The registered preprocessors by the peers' questions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def specs(self) -> list[Any]:
        """All that can run, in the page's order."""
        return [entry.spec for entry in self._services.annotators.entries]

    def get(self, name: str) -> KnownPreprocessor | None:
        """By id, label or alias; None where nothing is."""
        try:
            return KnownPreprocessor(self._services, self._services.annotators.get(name).spec)
        except KeyError:
            return None

    def of_type(self, tag: str) -> list[KnownPreprocessor]:
        """A control type's, "none" first."""
        return [KnownPreprocessor(self._services, spec) for spec in preprocessors_of(tag, self.specs())]

    def by_label(self) -> Mapping[str, KnownPreprocessor]:
        """All by their label."""
        return {found.label: found for found in self.of_type("All")}

    def default(self, tag: str) -> KnownPreprocessor | None:
        """A control type's first."""
        spec = default_preprocessor(tag, self.specs(), absent(self._services), deciding_model(self._services, tag))
        return None if spec is None else KnownPreprocessor(self._services, spec)


def bound_to(services: Services) -> type[Preprocessor]:
    """The class, registering with these services' preprocessors."""
    lookup = Lookup(services)

    class BoundPreprocessor(Preprocessor):
        __doc__ = Preprocessor.__doc__
        device: ClassVar[Any] = Live(_host_device)
        all_processors: ClassVar[Any] = Live(lookup.by_label)
        all_processors_by_name: ClassVar[Any] = Live(lambda: {item.name: item for item in lookup.of_type("All")})

        @classmethod
        def add_supported_preprocessor(cls, p: Preprocessor) -> None:
            """Offer `p` in the page and the API. Raises an error if one of its names is taken."""
            services.annotators.register_third_party(p)

        @classmethod
        def get_preprocessor(cls, name: str) -> KnownPreprocessor | None:
            """The one known under this name or label; None where nothing is."""
            return lookup.get(name)

        @classmethod
        def get_sorted_preprocessors(cls) -> list[KnownPreprocessor]:
            """All in the page's order."""
            return lookup.of_type("All")

        @classmethod
        def get_all_preprocessor_tags(cls) -> list[str]:
            """The control types."""
            return type_names(lookup.specs())

        @classmethod
        def get_filtered_preprocessors(cls, tag: str) -> Any:
            """A control type's; for "All", by label."""
            return cls.all_processors if tag == "All" else lookup.of_type(tag)

        @classmethod
        def get_default_preprocessor(cls, tag: str) -> KnownPreprocessor | None:
            """A control type's first."""
            return lookup.default(tag)

    BoundPreprocessor.__name__ = BoundPreprocessor.__qualname__ = "Preprocessor"
    return cast("type[Preprocessor]", BoundPreprocessor)


def _host_device() -> Any:
    """Where the host wants ControlNet's networks."""
    from modules import devices

    return devices.get_device_for("controlnet")
