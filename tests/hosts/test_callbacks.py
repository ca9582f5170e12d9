"""How the extension registers its callbacks with the host."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_controlnet.hosts.webui.callbacks import register

EVENTS = ("cfg_denoiser", "model_loaded", "before_ui", "ui_settings", "ui_tabs", "app_started", "script_unloaded")


@pytest.fixture
def extension() -> Any:
    runner = SimpleNamespace(denoiser_step="denoiser_step")
    names = ("before_page", "settings_page", "tabs", "mount_routes", "unload")
    memory = SimpleNamespace(checkpoint_loaded="checkpoint_loaded")
    return SimpleNamespace(runner=runner, memory=memory, **{name: name for name in names})


def host(monkeypatch: pytest.MonkeyPatch, register_one: Callable[[str, object], None]) -> None:
    callbacks = ModuleType("modules.script_callbacks")
    for event in EVENTS:
        setattr(callbacks, f"on_{event}", lambda function, event=event: register_one(event, function))
    modules = ModuleType("modules")
    monkeypatch.setattr(modules, "script_callbacks", callbacks, raising=False)
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setitem(sys.modules, "modules.script_callbacks", callbacks)


def test_each_callback_is_registered_once_and_in_order(extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[tuple[str, object]] = []
    host(monkeypatch, lambda event, function: registered.append((event, function)))
    register(extension)
    functions = ("denoiser_step", "checkpoint_loaded", "before_page", "settings_page", "tabs", "mount_routes", "unload")
    assert registered == list(zip(EVENTS, functions, strict=True))


def test_the_host_finds_the_caller_without_searching_all_modules(
    extension: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[list[str]] = []
    host(monkeypatch, lambda *_: stacks.append([frame.filename for frame in inspect.stack(0)]))
    register(extension)
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    assert len(stacks) == len(EVENTS)
    for stack in stacks:
        assert set(stack) <= files
        assert next(file for file in stack if file != __file__).endswith("callbacks.py")


def test_what_the_host_refuses_is_raised(extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: str, _: object) -> None:
        raise TypeError(f"no {event} here")

    host(monkeypatch, refuse)
    with pytest.raises(TypeError, match="no cfg_denoiser here"):
        register(extension)
