"""The extension as one object: what `scripts/controlnet.py` registers with the host."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ...core.arguments import options_from_args, units_from_args
from ...core.errors import HostError
from ...core.panel_options import PanelOptions
from ...core.settings import MISSING, Settings
from ...core.units import ControlNetUnit, configured_units
from ...engine.facts import FactReader
from ...engine.library import Listing, ModelLibrary
from ...engine.model_cache import ModelCache
from ...engine.preprocess import PreprocessRunner
from ...engine.services import PageServices
from ...engine.weights import WeightFiles
from ...families.registry import discover, own_controls
from ..base import Host
from ..found import found_host
from . import batch_tab, beside
from .axes import overrides_of, register_axes
from .memory import HostMemory
from .outside import Outside
from .prompts import caption, has_interrogator
from .runner import Runner
from .training import Training

log = logging.getLogger("ControlNet")
GIB = 1 << 30


class Extension:
    """Made once a process: "Reload UI" executes the entry script again and finds the same object."""

    def __init__(self, root: Path, annotator: ModuleType, registry: Any) -> None:
        host: Host = found_host()
        demo = root / "models" / "demo" / "demo.safetensors"
        library = ModelLibrary(lambda: model_folders(root), [demo], model_listing)
        families = discover()
        models = ModelCache(families, lambda: setting("controlnet_model_cache_gib", 6) * GIB)
        preprocess = PreprocessRunner(registry, lambda: _annotator_runtime(annotator, root, host), free=models.release)
        weights: Any = importlib.import_module(f"{annotator.__name__}.weights")
        self.services = PageServices(
            library,
            registry,
            preprocess,
            models,
            setting,
            FactReader(families),
            WeightFiles(weights, lambda: tuple(annotator_folders(root))),
            root / "presets",
            host.loaded_model,
            lambda pose: importlib.import_module(f"{annotator.__name__}.skeletons").draw_json(pose),
            has_pose_editor,
            lambda pixels: caption(Image.fromarray(pixels)),
            can_caption=has_interrogator,
            palette=lambda: importlib.import_module(f"{annotator.__name__}.palettes").ade20k(),
            setting_problems=lambda: [*([host.notice] if host.notice else []), *setting.problems()],
            masks_are_regions=host.masks_are_regions,
            model_files=WeightFiles(weights, lambda: tuple(model_folders(root))),
        )
        self.runner = Runner(self.services, host)
        self.memory = HostMemory(self.services, host)
        self._panel_errors: dict[bool, Exception] = {}
        """By tab (whether it is img2img): why its panel could not be made."""
        self.training = Training(root, self.services, lambda: tuple(annotator_folders(root)))
        self._root, self._host = root, host
        self._names: Any = None
        self._makers: Any = None
        self._network: Any = None
        self._script_class: Any = None
        self._other: tuple[beside.Other | None] | None = None
        """None until it has been looked for."""

    def panel(self, script: Any, is_img2img: bool) -> list[Any]:
        """The widgets of one tab. Never fails: units that a host drops without a word would be ignored."""
        from ...ui.panel_failure import blocks_here, stand_in

        tab, before = "img2img" if is_img2img else "txt2img", blocks_here()
        self._panel_errors.pop(is_img2img, None)
        other = self.other()
        if other is not None:
            script.infotext_fields, script.paste_field_names = [], []
            return self._panel_beside(tab, other)
        try:
            from ...ui.panel import build

            widgets = build(self.services, tab, is_img2img, script)
            if not is_img2img:
                self.training.remember_unit(widgets)
        except Exception as error:
            log.exception("The ControlNet panel of %s could not be made.", tab)
            self._panel_errors[is_img2img] = error
            script.infotext_fields, script.paste_field_names = [], []
            return stand_in(tab, error, before)
        return widgets

    def other(self) -> beside.Other | None:
        """Another ControlNet that is on beside this one, looked for once a load of the host's scripts."""
        if self._other is None:
            self._other = (beside.other_controlnet(),)
            if self._other[0] is not None:
                log.warning("Another ControlNet is on (%s); this one is %s.", self._other[0].folder, beside.BESIDE)
        return self._other[0]

    def title(self) -> str:
        """Of our script, and so its key in the API."""
        return beside.TITLE if self.other() is None else beside.BESIDE

    def _panel_beside(self, tab: str, other: beside.Other) -> list[Any]:
        from ...ui.beside import build

        switch_off = (lambda: beside.switch_off(other)) if beside.may_switch() else None
        return build(tab, beside.BESIDE, other.folder, other.users, switch_off)

    def units(self, p: Any, args: Sequence[object]) -> Sequence[ControlNetUnit]:
        """The units among a script's arguments, with what a grid or another script decided.

        Raises HostError for an enabled one of a tab whose panel could not be made.
        """
        from ...compat.arguments import plain_arguments

        units = units_from_args(plain_arguments(args), unit_count(), overrides_of(p, setting))
        failure = self._panel_errors.get(hasattr(p, "init_images"))
        if failure is not None and any(unit.enabled for unit in units):
            raise HostError(
                "the ControlNet panel could not be made when the WebUI started",
                found=f"{type(failure).__name__}: {failure}",
                remedy="see the console for the whole reason, and reload the UI when it is gone",
            )
        return units

    def show_units(self, p: Any, script: Any) -> Sequence[Any]:
        """A processing object has its arguments: makes ours unit objects, which is what others look for there."""
        from ...compat.arguments import show_units

        return show_units(p, script)

    def tabs(self) -> list[Any]:
        """Our tab beside the host's."""
        from ...ui.control_tab import build

        return build(self.services, [("Train", self.training.page)])

    def before_page(self) -> None:
        """All scripts are loaded, the page is about to be made: axes for the X/Y/Z plot, img2img's batches, memory."""
        self._host.give_notice()
        self._take_preprocessors()
        register_axes(self.services, unit_count())
        batch_tab.wrap()
        self.memory.watch()

    def _take_preprocessors(self) -> None:
        """Those that the host has and we do not."""
        for found in self._host.preprocessors():
            if found.name not in self.services.annotators:
                try:
                    self.services.annotators.register_third_party(found)
                except (AttributeError, TypeError, ValueError) as error:  # it is a stranger's, and ours go on
                    log.warning("The host's preprocessor %s cannot be used: %s", found.name, error)

    def unload(self) -> None:
        """The host drops its scripts: leaves it as if we had never been there."""
        self.runner.detach()
        batch_tab.unwrap()
        self.memory.unwatch()

    def options(self, args: Sequence[object]) -> PanelOptions:
        """The panel's own options among a script's arguments."""
        from ...compat.arguments import plain_arguments

        return options_from_args(plain_arguments(args))

    def settings_page(self) -> None:
        """Registers our options with the host."""
        from modules import script_callbacks, shared

        from ...ui import settings

        settings.register(shared, script_callbacks)

    def mount_routes(self, _demo: Any, app: Any) -> None:
        """Adds `/controlnet/*` to the host's web server, behind the host's own logins."""
        from modules import shared
        from modules.call_queue import queue_lock

        from ...webapi.logins import host_accounts
        from ...webapi.routes import mount

        logins = host_accounts(shared.cmd_opts)
        if self.other() is None:
            mount(app, self.services, logins, queue_lock)
        self.training.mount_routes(app, logins, queue_lock)

    def latest_network(self) -> Any:
        """The control under way, as tilers of other extensions look at it; None where no unit acts."""
        from ...compat.network import NetworkView

        if self._network is None:
            self._network = NetworkView(Outside(self.runner))
        return self._network.latest()

    def unload_models(self) -> None:
        """Lets go of the loaded control models; the next job reads its own again."""
        self.services.models.clear()

    def register_names(self, script_class: type) -> None:
        """Makes sd-webui-controlnet's modules importable for other extensions, where nobody else has them."""
        from ...compat.names import Names

        self._script_class, self._other = script_class, None
        if self._names is None:
            self._names = Names(self._root, self._fill_module, lambda: other_folders(self._root))
        self._names.install()

    def _fill_module(self, name: str, module: ModuleType) -> None:
        from ...compat.modules import makers

        if self._makers is None:
            self._makers = makers(self.services, unit_count, lambda: self._script_class)
        self._makers[name](module)


def boot(root: Path, annotator_name: str) -> Extension:
    """The process's Extension, made at the first call."""
    annotator = sys.modules[annotator_name]
    leave_path(root)
    existing = getattr(annotator, "extension", None)
    if isinstance(existing, Extension):
        return existing
    registry = importlib.import_module(f"{annotator_name}.registry").discover(own_controls())
    extension = Extension(root, annotator, registry)
    annotator.extension = extension  # type: ignore[attr-defined]
    return extension


def leave_path(root: Path) -> None:
    """Takes an extension's folder off the places where modules are found: we import nothing from there, and hosts that
    leave it in front of their own (the Forge family) would find our `launch` or `tests` for theirs.
    """
    if root.parent.name in ("extensions", "extensions-builtin"):
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root.resolve()]


def _option(key: str) -> object:
    """An option of the host as it is; MISSING while it is not registered."""
    from modules import shared

    return shared.opts.data.get(key, MISSING)


setting = Settings(_option)


def unit_count() -> int:
    """Units a tab has."""
    return configured_units(setting)


def model_folders(root: Path) -> Iterator[Path]:
    """Where control models are looked for, first wins: the WebUI's own folder, ours, the setting's, the flag's."""
    from modules import paths, shared

    yield Path(paths.models_path) / "ControlNet"
    yield root / "models"
    for extra in (setting("control_net_models_path", ""), getattr(shared.cmd_opts, "controlnet_dir", None)):
        if extra:
            yield Path(extra)


def model_listing() -> Listing:
    """How the settings want models listed."""
    return Listing(
        setting("control_net_models_sort_models_by", "name"),
        setting("control_net_models_name_filter", ""),
    )


def other_folders(root: Path) -> Iterator[Path]:
    """The folders in which the host and the other extensions that are on have modules of their own."""
    from modules import extensions, paths

    found = [Path(paths.script_path), *(Path(extension.path) for extension in extensions.active())]
    yield from (folder for folder in found if folder.resolve() != root.resolve())


def has_pose_editor() -> bool:
    """Whether sd-webui-openpose-editor is installed and on."""
    from modules import extensions

    return any(extension.name == "sd-webui-openpose-editor" for extension in extensions.active())


def annotator_folders(root: Path) -> Iterator[Path]:
    """Where preprocessors look for weights, first wins: the setting's, the flag's, the host's, the peer's."""
    from modules import paths, shared

    for given in (
        setting("control_net_modules_path", ""),
        getattr(shared.cmd_opts, "controlnet_annotator_models_path", None),
        getattr(shared.cmd_opts, "controlnet_preprocessor_models_dir", None),
    ):
        if given:
            yield Path(given)
    yield Path(paths.models_path) / "ControlNetPreprocessor"
    yield root / "models" / "ControlNetPreprocessor"  # where the command `annotate` puts them
    yield root.parent / "sd-webui-controlnet" / "annotator" / "downloads"


def _annotator_runtime(annotator: ModuleType, root: Path, host: Host) -> Any:
    spec, trust = (importlib.import_module(f"{annotator.__name__}.{name}") for name in ("spec", "trust"))
    folders = tuple(annotator_folders(root))
    device, dtype = host.place()
    return spec.Runtime(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        clip_device="cpu" if setting("controlnet_clip_detector_on_cpu", False) else "",
        weight_folders=folders,
        download_folder=lambda: folders[0] if setting("controlnet_download_weights", False) else None,
        trusted=lambda: trust.trusted_hashes(setting("controlnet_trusted_files", "")),
    )
