"""What lies in each of the modules that other extensions import; see `names` for how they are found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

from ..engine.services import Services
from . import batch_hijack, enums, external_code, images, network
from .global_state import ATTRIBUTES, OFFERED, GlobalState
from .preprocessor import Preprocessor, PreprocessorParameter, bound_to
from .processor import PLAIN, Processor
from .unit import ControlNetUnit

VERSION = "v1.1.455"
"""The version of sd-webui-controlnet whose interface this is."""


Make = Callable[[ModuleType], None]


def makers(services: Services, unit_count: Callable[[], int], script_class: Callable[[], Any]) -> Mapping[str, Make]:
    """Name of a module -> what fills it, bound to services. `script_class`: the class of our script."""
    contents = _Contents(services, script_class)
    return {
        "external_code": lambda module: external_code.fill(module, services, unit_count, contents.preprocessor),
        "supported_preprocessor": contents.supported_preprocessor,
        "global_state": contents.global_state,
        "processor": contents.processor,
        "controlnet": contents.controlnet,
        "hook": _of(
            network,
            "TorchHijackForUnet ControlParams mark_prompt_context unmark_prompt_context prompt_context_is_marked "
            "POSITIVE_MARK_TOKEN NEGATIVE_MARK_TOKEN MARK_EPS",
            th=network.TorchHijackForUnet(),
            UnetHook=network.LatestNetwork,
            ControlModelType=enums.ControlModelType,
            AutoMachine=enums.AutoMachine,
            HiResFixOption=enums.HiResFixOption,
        ),
        "cldm": _of(network, "ControlNet PlugableControlModel"),
        "batch_hijack": _of(batch_hijack, "InputMode BatchHijack instance"),
        "enums": _of(enums, " ".join(_classes_of(enums))),
        "utils": _of(images, " ".join(_IMAGES)),
        "annotator_util": _of(images, "HWC3 resize_image resize_image_with_pad pad64 safer_memory"),
        "annotator_uniformer": contents.uniformer,
        "annotator_oneformer": contents.oneformer,
        "controlnet_ui_group": lambda module: setattr(module, "UiControlNetUnit", ControlNetUnit),
        "controlnet_version": lambda module: setattr(module, "version_flag", VERSION),
        "logging": lambda module: setattr(module, "logger", logging.getLogger("ControlNet")),
    }


_IMAGES = (
    "align_dim_latent",
    "get_state_dict",
    "get_unique_axis0",
    "load_state_dict",
    "npimg2tensor",
    "pad64",
    "resize_image_with_pad",
    "safer_memory",
    "tensor2npimg",
    "visualize_inpaint_mask",
)


def _classes_of(module: ModuleType) -> Iterable[str]:
    return (
        name for name, item in vars(module).items() if isinstance(item, type) and item.__module__ == module.__name__
    )


def _of(source: ModuleType, names: str, **more: Any) -> Make:
    """Fills a module with things of one of ours, under their names there."""

    def make(module: ModuleType) -> None:
        vars(module).update({name: getattr(source, name) for name in names.split()}, **more)

    return make


class _Contents:
    """The modules that are bound to services."""

    def __init__(self, services: Services, script_class: Callable[[], Any]) -> None:
        self._services = services
        self._script_class = script_class
        self.preprocessor: type[Preprocessor] = bound_to(services)

    def supported_preprocessor(self, module: ModuleType) -> None:
        vars(module).update(Preprocessor=self.preprocessor, PreprocessorParameter=PreprocessorParameter)

    def global_state(self, module: ModuleType) -> None:
        state = GlobalState(self._services)
        vars(module).update({name: getattr(state, name) for name in OFFERED})
        vars(module)["CN_MODEL_EXTS"] = [".pt", ".pth", ".ckpt", ".safetensors", ".bin"]
        _answers(module, ATTRIBUTES, state.value)

    def processor(self, module: ModuleType) -> None:
        processor = Processor(self._services)
        vars(module).update(PLAIN)
        _answers(module, None, processor.value, processor.names)

    def controlnet(self, module: ModuleType) -> None:
        """Of the file that the host has run already, which must not run twice."""
        state = GlobalState(self._services)
        module.update_cn_models = state.update_cn_models  # type: ignore[attr-defined]

        def value(name: str) -> Any:
            return self._script_class() if name in ("Script", "ControlNetScript") else state.value(name)

        _answers(module, ("Script", "ControlNetScript", "cn_models", "cn_models_names"), value)

    def uniformer(self, module: ModuleType) -> None:
        """Segment Anything's call; its way of strengthening a map by hooks inside the network is not there."""

        def apply_uniformer(img: Any) -> Any:
            return self._services.preprocess.run("segmentation", images.HWC3(img)).map.copy()

        vars(module).update(apply_uniformer=apply_uniformer, unload_uniformer_model=self._services.preprocess.unload)

    def oneformer(self, module: ModuleType) -> None:
        services = self._services

        class OneformerDetector:
            """A map of classes by OneFormer, of the set that its configuration names."""

            configs: ClassVar = {name: {"name": f"oneformer_{name}"} for name in ("coco", "ade20k")}

            def __init__(self, config: Mapping[str, str]) -> None:
                self.config = config

            def __call__(self, img: Any) -> Any:
                return services.preprocess.run(self.config["name"], images.HWC3(img)).map.copy()

            def unload_model(self) -> None:
                services.preprocess.unload()

        module.OneformerDetector = OneformerDetector  # type: ignore[attr-defined]


def _answers(
    module: ModuleType,
    names: Sequence[str] | None,
    value: Callable[[str], Any],
    listed: Callable[[], list[str]] | None = None,
) -> None:
    """Has the module answer some names anew at every look. `listed`: what `from … import *` asks for."""

    def look(name: str) -> Any:
        if name == "__all__" and listed is not None:
            return listed()
        if name.startswith("__") or (names is not None and name not in names):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return value(name)

    module.__getattr__ = look  # type: ignore[method-assign]
