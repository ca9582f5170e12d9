"""Extension scripts: the `Script` base class, loading, and the two runners (txt2img, img2img)."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from modules import errors, extensions, paths, script_callbacks, script_loading, util
from modules.script_runner import ScriptRunner
from modules.scripts_args import (
    AlwaysVisible,
    MaskBlendArgs,
    OnComponent,
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
)

__all__ = [
    "AlwaysVisible",
    "MaskBlendArgs",
    "OnComponent",
    "PostProcessMaskOverlayArgs",
    "PostSampleArgs",
    "PostprocessBatchListArgs",
    "PostprocessImageArgs",
    "Script",
    "ScriptRunner",
    "basedir",
    "list_files_with_name",
    "list_scripts",
    "load_scripts",
    "scripts_data",
]


class Script:
    """Base of all scripts; hosts call a method only when the class overrides it."""

    # where it stands
    filename: str = ""
    name: str | None = None
    tabname: str | None = None
    section: str | None = None
    alwayson, is_txt2img, is_img2img = False, False, False
    # its widgets, and their places among all arguments
    create_group, setup_for_ui_only = True, False
    args_from: int | None = None
    args_to: int | None = None
    controls: list[Any] | None = None
    group: Any = None
    api_info: Any = None
    infotext_fields: list[Any] | None = None
    paste_field_names: list[str] | None = None
    on_before_component_elem_id: list[Any] | None = None
    on_after_component_elem_id: list[Any] | None = None

    def title(self) -> str:
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> Any: ...

    def show(self, is_img2img: bool) -> Any:
        return True

    def run(self, p: Any, *args: Any) -> Any: ...

    def setup(self, p: Any, *args: Any) -> None: ...

    def before_process(self, p: Any, *args: Any) -> None: ...

    def process(self, p: Any, *args: Any) -> None: ...

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def after_extra_networks_activate(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None: ...

    def postprocess_batch_list(self, p: Any, pp: PostprocessBatchListArgs, *args: Any, **kwargs: Any) -> None: ...

    def on_mask_blend(self, p: Any, mba: MaskBlendArgs, *args: Any) -> None: ...

    def post_sample(self, p: Any, ps: PostSampleArgs, *args: Any) -> None: ...

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None: ...

    def postprocess_maskoverlay(self, p: Any, ppmo: PostProcessMaskOverlayArgs, *args: Any) -> None: ...

    def postprocess_image_after_composite(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None: ...

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None: ...

    def before_component(self, component: Any, **kwargs: Any) -> None: ...

    def after_component(self, component: Any, **kwargs: Any) -> None: ...

    def before_hr(self, p: Any, *args: Any) -> None: ...

    def on_before_component(self, callback: Any, *, elem_id: str) -> None:
        self.on_before_component_elem_id = [*(self.on_before_component_elem_id or []), (elem_id, callback)]

    def on_after_component(self, callback: Any, *, elem_id: str) -> None:
        self.on_after_component_elem_id = [*(self.on_after_component_elem_id or []), (elem_id, callback)]

    def describe(self) -> str:
        return ""

    def elem_id(self, item_id: str) -> str:
        """Element id of a widget of this script, with the tab's name when the script is in both tabs."""
        both = self.show(True) == self.show(False)
        tab = f"{'img2img' if self.is_img2img else 'txt2img'}_" if both else ""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{tab}{title}_{item_id}"


@dataclass
class ScriptFile:
    basedir: str
    filename: str
    path: str


@dataclass
class ScriptClassData:
    script_class: type[Script]
    path: str
    basedir: str
    module: ModuleType


current_basedir = paths.script_path
scripts_data: list[ScriptClassData] = []
postprocessing_scripts_data: list[ScriptClassData] = []
scripts_txt2img: ScriptRunner = None  # type: ignore[assignment]
scripts_img2img: ScriptRunner = None  # type: ignore[assignment]
scripts_current: ScriptRunner | None = None


def basedir() -> str:
    """Root of the extension whose script is being loaded; valid only while loading."""
    return current_basedir


def list_scripts(scriptdirname: str, extension: str, *, include_extensions: bool = True) -> list[ScriptFile]:
    """Files with this suffix: the host's own, then each active extension's; ordered by their metadata."""
    own = Path(paths.script_path) / scriptdirname
    host_files = sorted(own.glob(f"*{extension}")) if own.is_dir() else []
    found = [ScriptFile(paths.script_path, x.name, str(x)) for x in host_files]
    dependencies: dict[str, list[str]] = {}
    files: dict[str, ScriptFile] = {}
    for ext in extensions.active() if include_extensions else []:
        for root, filename, path in ext.list_files(scriptdirname, extension):
            name = f"{'builtin/' if ext.is_builtin else ''}{ext.canonical_name}/{filename}".lower()
            files[name] = ScriptFile(root, filename, path)
            sections = (f"{scriptdirname}/{filename}", scriptdirname)
            dependencies.setdefault(name, []).extend(ext.metadata.words("After", *sections))
            dependencies[name] += ext.metadata.words("Requires", *sections)
            for other in ext.metadata.words("Before", *sections):
                dependencies.setdefault(other, []).append(name)
    expanded = {n: _expand(deps, files) for n, deps in dependencies.items() if n in files}
    return found + [files[x] for x in util.topological_sort(expanded)]


def _expand(names: list[str], files: dict[str, ScriptFile]) -> list[str]:
    """A bare extension name stands for all its files."""
    return [x for name in names for x in files if x == name or x.startswith(name + "/")]


def list_files_with_name(filename: str) -> list[str]:
    roots = [paths.script_path, *(x.path for x in extensions.active())]
    return [str(Path(root) / filename) for root in roots if (Path(root) / filename).is_file()]


def _register_classes(file: ScriptFile, module: ModuleType) -> None:
    for cls in module.__dict__.values():
        if inspect.isclass(cls) and issubclass(cls, Script):
            scripts_data.append(ScriptClassData(cls, file.path, file.basedir, module))


def load_scripts() -> None:
    """Execute all scripts again: callbacks are cleared, both runners are new, `sys.path` is restored."""
    global current_basedir, scripts_txt2img, scripts_img2img
    scripts_data.clear()
    postprocessing_scripts_data.clear()
    script_callbacks.clear_callbacks()
    syspath = sys.path
    for file in list_scripts("scripts", ".py"):
        try:
            if file.basedir != paths.script_path:
                sys.path = [file.basedir, *sys.path]
            current_basedir = file.basedir
            _register_classes(file, script_loading.load_module(file.path))
        except Exception:  # noqa: BLE001 - a broken extension is absent, the host starts
            errors.report(f"Error loading script: {file.filename}", exc_info=True)
        finally:
            sys.path = syspath
            current_basedir = paths.script_path
    scripts_txt2img = ScriptRunner()
    scripts_img2img = ScriptRunner()


reload_scripts = load_scripts
