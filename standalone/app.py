"""Starting the host inside a process: `boot()` gives an `App` with everything loaded but the model.

The model is loaded on first use. `App.close()` removes the host, so that tests can start the next one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from standalone.environment import REPOSITORY, STANDALONE, Environment


def default_checkpoint() -> Path | None:
    """The demo model, if it is there."""
    file = REPOSITORY / "models" / "demo" / "demo.safetensors"
    return file if file.is_file() else None


def boot(
    checkpoint: Path | str | None = None,
    controlnet_dir: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    extension_dirs: Sequence[Path] = (REPOSITORY,),
    api: bool = True,
    ui: bool = True,
    argv: Sequence[str] = (),
    nested: bool = False,
    behaving_as: str | None = None,
) -> App:
    """Start a host with these extensions.

    checkpoint: an SD 1.x file (LDM keys); the demo model by default. data_dir: settings, outputs, models
    (default standalone/user). api: build the FastAPI application with /sdapi/v1. ui: build the gradio page;
    without it no gradio is needed and scripts get 64 arguments each (see `App.txt2img`). argv: further
    options of the command line. Raises RuntimeError when a host runs in this process already, unless `nested`:
    then that one cannot be used until this one is closed. behaving_as: "forge", "neo", "reforge" or "classic" for
    a host of that family (see `standalone.forge`).
    """
    environment = Environment()
    environment.enter(nested)
    options = list(argv)
    if checkpoint is None and not any(x == "--ckpt" or x.startswith("--ckpt=") for x in argv):
        checkpoint = default_checkpoint()
    given = {"--ckpt": checkpoint, "--controlnet-dir": controlnet_dir, "--behave-as": behaving_as}
    for name, value in given.items():
        if value is not None:
            options += [name, str(value)]
    if api:
        options.append("--api")
    try:
        return App(environment, Path(data_dir or STANDALONE / "user"), list(extension_dirs), options, ui, api)
    except BaseException:
        environment.leave(extension_dirs)
        raise


class App:
    """A running host. `app.modules("shared")` is its `modules.shared`."""

    def __init__(
        self, environment: Environment, data_dir: Path, extension_dirs: list[Path], argv: list[str], ui: bool, api: bool
    ) -> None:
        self.extension_dirs = extension_dirs
        self.with_page = ui
        self.demo: Any = None
        self.app: Any = None
        self.api: Any = None
        self._environment = environment
        self._closed = False
        self._configure(data_dir, argv)
        self._initialize()
        if ui:
            self.build_page()
        else:
            self._headless_scripts()
        if api:
            self._build_api()

    def modules(self, name: str) -> ModuleType:
        return importlib.import_module(f"modules.{name}")

    # start

    def _configure(self, data_dir: Path, argv: list[str]) -> None:
        models = argv[argv.index("--models-dir") + 1] if "--models-dir" in argv else None
        self.modules("paths_internal").configure(data_dir, Path(models) if models else None)
        self.modules("shared_cmd_options").parse(argv, self.extension_dirs)

    def _initialize(self) -> None:
        self.modules("shared_init").initialize()
        family = self.modules("shared_cmd_options").cmd_opts.behave_as
        if family is not None:
            importlib.import_module("standalone.forge.install").install(family)
        self.modules("safe").install()
        self.modules("k_diffusion_mount").install()
        self.modules("sd_models").list_models()
        self.modules("infotext_utils")
        extensions = self.modules("extensions")
        extensions.configure(self.extension_dirs)
        self.load_scripts()

    def load_scripts(self) -> None:
        self.modules("extensions").list_extensions()
        self.modules("scripts").load_scripts()
        self.modules("sd_unet").list_unets()

    def _headless_scripts(self) -> None:
        callbacks, scripts = self.modules("script_callbacks"), self.modules("scripts")
        callbacks.before_ui_callback()
        callbacks.ui_settings_callback()
        for runner, is_img2img in ((scripts.scripts_txt2img, False), (scripts.scripts_img2img, True)):
            runner.initialize_scripts(is_img2img)
            runner.setup_headless()

    def build_page(self) -> None:
        """The gradio page of the present scripts."""
        self.modules("script_callbacks").before_ui_callback()
        self.demo = self.modules("ui").create_ui()

    def _build_api(self) -> None:
        from fastapi import FastAPI

        self.app = FastAPI()
        self.attach_api(self.app)
        self.modules("script_callbacks").app_started_callback(self.demo, self.app)

    def attach_api(self, app: Any) -> None:
        """The /sdapi/v1 routes on a FastAPI application."""
        self.api = self.modules("api.api").Api(app, self.modules("call_queue").queue_lock)

    # use

    def script_args(self, is_img2img: bool, alwayson: Mapping[str, Sequence[Any]]) -> tuple[Any, ...]:
        """Arguments for a job: defaults, and per script title the given ones from its first on."""
        scripts = self.modules("scripts")
        runner = scripts.scripts_img2img if is_img2img else scripts.scripts_txt2img
        args = [getattr(x, "value", None) for x in runner.inputs]
        args[0] = 0
        for title, values in alwayson.items():
            script = runner.script(title)
            if script is None:
                raise KeyError(f"there is no script {title!r}; found: {', '.join(sorted(runner.title_map)) or 'none'}")
            if len(values) > script.args_to - script.args_from:
                raise ValueError(
                    f"script {title!r} takes {script.args_to - script.args_from} arguments, not {len(values)}"
                )
            args[script.args_from : script.args_from + len(values)] = list(values)
        return tuple(args)

    def _run(self, kind: str, alwayson: Mapping[str, Sequence[Any]], settings: dict[str, Any]) -> Any:
        processing, scripts = self.modules("processing"), self.modules("scripts")
        shared = self.modules("shared")
        is_img2img = kind == "Img2Img"
        defaults = {"do_not_save_samples": True, "do_not_save_grid": True}
        queue = self.modules("call_queue")
        with queue.queue_lock:
            job = getattr(processing, f"StableDiffusionProcessing{kind}")(**{**defaults, **settings})
            with closing(job) as p:
                p.is_api = True
                p.scripts = scripts.scripts_img2img if is_img2img else scripts.scripts_txt2img
                p.outpath_samples = shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples
                p.outpath_grids = shared.opts.outdir_grids or shared.opts.outdir_txt2img_grids
                with queue.running_job(f"scripts_{kind.lower()}"):
                    p.script_args = self.script_args(is_img2img, alwayson)
                    return processing.process_images(p)

    def txt2img(self, alwayson: Mapping[str, Sequence[Any]] | None = None, **settings: Any) -> Any:
        """Run a job now; `settings` as the constructor of StableDiffusionProcessingTxt2Img, returns Processed.

        `alwayson` gives scripts their arguments by title, e.g. {"ControlNet": [{"enabled": True, ...}]}.
        """
        return self._run("Txt2Img", alwayson or {}, settings)

    def img2img(self, alwayson: Mapping[str, Sequence[Any]] | None = None, **settings: Any) -> Any:
        """As `txt2img`, with `init_images` (PIL)."""
        return self._run("Img2Img", alwayson or {}, settings)

    def reload(self) -> None:
        """What "Reload UI" does: callbacks, scripts executed again, page and API built again."""
        callbacks = self.modules("script_callbacks")
        callbacks.app_reload_callback()
        callbacks.script_unloaded_callback()
        self.load_scripts()
        if self.with_page:
            self.build_page()
        else:
            self._headless_scripts()
        if self.api is not None:
            self._build_api()

    # end

    def close(self) -> None:
        """Remove the host from this process. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.modules("script_callbacks").script_unloaded_callback()
        self.modules("safe").uninstall()
        self.modules("k_diffusion_mount").uninstall()
        if self.with_page:
            self.modules("gradio_extension").uninstall()
        self._environment.leave(self.extension_dirs)

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
