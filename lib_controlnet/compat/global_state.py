"""`scripts.global_state` of sd-webui-controlnet and `lib_controlnet.global_state` of Forge: lists of what is there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.control_types import NO_MODEL, default_model, models_of, type_names
from ..engine.services import Services
from .enums import StableDiffusionVersion
from .preprocessor import KnownPreprocessor, Lookup, detect

OFFERED = (
    "update_cn_models",
    "update_controlnet_filenames",
    "get_all_controlnet_names",
    "get_controlnet_filename",
    "get_filtered_controlnet_names",
    "get_all_preprocessor_names",
    "get_all_preprocessor_tags",
    "get_preprocessor",
    "get_default_preprocessor",
    "get_sorted_preprocessors",
    "get_filtered_preprocessors",
    "get_filtered_preprocessor_names",
    "get_module_basename",
    "get_sd_version",
    "select_control_type",
)
"""The functions; the rest is in `ATTRIBUTES`."""

ATTRIBUTES = (
    "cn_models",
    "cn_models_names",
    "controlnet_filename_dict",
    "controlnet_names",
    "cn_models_dir",
    "cn_preprocessor_modules",
    "ui_preprocessor_keys",
    "preprocessor_aliases",
    "reverse_preprocessor_aliases",
)
"""Values that change while the WebUI runs: each look is answered anew; dicts and lists stay the same objects."""


class GlobalState:
    """What the two modules offer, bound to services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lookup = Lookup(services)
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._model_names: dict[str, str] = {}
        self._listed: list[str] = []

    # values

    def value(self, name: str) -> Any:
        """The value of one of ATTRIBUTES."""
        return getattr(self, f"_{name}")()

    def _cn_models(self) -> OrderedDict[str, Any]:
        entries = {entry.name: str(entry.path) for entry in self._services.library.entries()}
        shown = ((name, entries[name]) for name in self._services.library.names() if name in entries)
        self._models.clear()
        self._models.update([(NO_MODEL, None), *shown])
        return self._models

    _controlnet_filename_dict = _cn_models

    def _cn_models_names(self) -> dict[str, str]:
        """Lower-case stem -> display name."""
        self._model_names.clear()
        for name, path in self._cn_models().items():
            if path is not None:
                self._model_names[Path(path).stem.lower()] = name
        return self._model_names

    def _controlnet_names(self) -> list[str]:
        self._listed[:] = self.get_all_controlnet_names()
        return self._listed

    def _cn_models_dir(self) -> str:
        from modules import paths

        return str(Path(paths.models_path) / "ControlNet")

    def _cn_preprocessor_modules(self) -> dict[str, Callable[..., Any]]:
        """Id -> function(img, res, thr_a, thr_b, …) -> (map, whether it is a picture)."""
        return {spec.id: preprocessor_function(self._services, spec.id) for spec in self._lookup.specs()}

    def _ui_preprocessor_keys(self) -> list[str]:
        return [spec.label for spec in self._lookup.specs()]

    def _preprocessor_aliases(self) -> dict[str, str]:
        """Id -> label, where they differ."""
        return {spec.id: spec.label for spec in self._lookup.specs() if spec.label != spec.id}

    def _reverse_preprocessor_aliases(self) -> dict[str, str]:
        return {label: id_ for id_, label in self._preprocessor_aliases().items()}

    # functions

    def update_cn_models(self) -> None:
        """Look for model files again."""
        self._services.library.refresh()
        self._cn_models_names()

    update_controlnet_filenames = update_cn_models

    def get_all_controlnet_names(self) -> list[str]:
        """ "None" and the display names of the models."""
        return [NO_MODEL, *self._services.library.names()]

    def get_controlnet_filename(self, controlnet_name: str) -> str | None:
        """The file of a model's display name. Raises KeyError for another name."""
        return self._cn_models()[controlnet_name]

    def get_filtered_controlnet_names(self, tag: str) -> list[str]:
        """ "None" and the models of a control type."""
        return models_of(tag, self._services.library.names())

    def get_all_preprocessor_names(self) -> list[str]:
        """The labels of the preprocessors."""
        return self._ui_preprocessor_keys()

    def get_all_preprocessor_tags(self) -> list[str]:
        """The control types."""
        return type_names(self._lookup.specs())

    def get_preprocessor(self, name: str) -> KnownPreprocessor | None:
        """By id, label or alias; None where nothing is."""
        return self._lookup.get(name)

    def get_default_preprocessor(self, tag: str) -> KnownPreprocessor | None:
        """A control type's first."""
        return self._lookup.default(tag)

    def get_sorted_preprocessors(self) -> dict[str, KnownPreprocessor]:
        """Label -> preprocessor, in the page's order."""
        return dict(self._lookup.by_label())

    def get_filtered_preprocessors(self, tag: str) -> dict[str, KnownPreprocessor]:
        """Label -> preprocessor of a control type."""
        return {found.label: found for found in self._lookup.of_type(tag)}

    def get_filtered_preprocessor_names(self, tag: str) -> list[str]:
        """The labels of a control type's preprocessors."""
        return list(self.get_filtered_preprocessors(tag))

    def get_module_basename(self, module: str | None) -> str:
        """Id of a preprocessor's id, label or alias; a name that nobody has stays what it is."""
        found = None if module is None else self._lookup.get(module)
        return (module or "none") if found is None else found.id

    def get_sd_version(self) -> StableDiffusionVersion:
        """The family of the loaded checkpoint, as the host tells it."""
        from modules import shared

        families = (("is_sdxl", "SDXL"), ("is_sd2", "SD2x"), ("is_sd1", "SD1x"))
        name = next((name for key, name in families if getattr(shared.sd_model, key, False)), "UNKNOWN")
        return StableDiffusionVersion[name]

    def select_control_type(self, control_type: str, *_ignored: Any, **_named: Any) -> tuple[Any, ...]:
        """Labels, models, and the defaults of both, of a control type."""
        default = self._lookup.default(control_type)
        names = self._services.library.names()
        return (
            [found.label for found in self._lookup.of_type(control_type)],
            models_of(control_type, names),
            "none" if default is None else default.label,
            default_model(control_type, names),
        )


def preprocessor_function(services: Services, id_: str) -> Callable[..., Any]:
    """A preprocessor as the function that sd-webui-controlnet had for it until 2024."""

    def run(img: Any, res: float = -1, thr_a: Any = -1, thr_b: Any = -1, **_kwargs: Any) -> tuple[Any, bool]:
        return detect(services, id_, img, res, thr_a, thr_b)

    run.__name__ = run.__qualname__ = id_
    return run
