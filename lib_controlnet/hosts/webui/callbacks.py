"""What the host calls of us beside the script's own methods."""

from __future__ import annotations

from threading import Thread

from .extension import Extension


def register(extension: Extension) -> None:
    """Registers with the host's `script_callbacks`; anew at every "Reload UI", which forgets them.

    For each callback the host asks the call stack whose it is, and Python then searches all modules that there are for
    every file on it that is no module's, as the host's loader and our entry are not: a third of all that we add to the
    host's start. A thread's stack is short and all of modules.
    """
    failed: list[Exception] = []

    def register_all() -> None:
        try:
            _register(extension)
        except Exception as error:  # noqa: BLE001 - raised below, where the host sees it
            failed.append(error)

    thread = Thread(target=register_all)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _register(extension: Extension) -> None:
    from modules import script_callbacks

    script_callbacks.on_cfg_denoiser(extension.runner.denoiser_step)
    script_callbacks.on_model_loaded(extension.memory.checkpoint_loaded)
    script_callbacks.on_before_ui(extension.before_page)
    script_callbacks.on_ui_settings(extension.settings_page)
    script_callbacks.on_ui_tabs(extension.tabs)
    script_callbacks.on_app_started(extension.mount_routes)
    script_callbacks.on_script_unloaded(extension.unload)
