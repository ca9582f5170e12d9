"""Callbacks that scripts register for events of the host; exceptions in them are reported and swallowed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from modules import errors, extensions, shared, util
from modules.callback_params import (
    AfterCFGCallbackParams,
    BeforeTokenCounterParams,
    CFGDenoisedParams,
    CFGDenoiserParams,
    ExtraNoiseParams,
    ImageGridLoopParams,
    ImageSaveParams,
    UiTrainTabParams,
)

__all__ = [
    "AfterCFGCallbackParams",
    "BeforeTokenCounterParams",
    "CFGDenoisedParams",
    "CFGDenoiserParams",
    "ExtraNoiseParams",
    "ImageGridLoopParams",
    "ImageSaveParams",
    "UiTrainTabParams",
]

CATEGORIES = (
    "app_started", "model_loaded", "ui_tabs", "ui_train_tabs", "ui_settings", "before_image_saved", "image_saved",
    "extra_noise", "cfg_denoiser", "cfg_denoised", "cfg_after_cfg", "before_component", "after_component",
    "image_grid", "infotext_pasted", "script_unloaded", "before_ui", "on_reload", "list_optimizers", "list_unets",
    "before_token_counter",
)  # fmt: skip

callback_map: dict[str, list[ScriptCallback]] = {f"callbacks_{name}": [] for name in CATEGORIES}
ordered_callbacks_map: dict[str, list[ScriptCallback]] = {}


@dataclass
class ScriptCallback:
    """One registered callback of the file `script`. `name` = extension/file/category[/name], unique."""

    script: str
    callback: Callable[..., Any]
    name: str = "unnamed"


def report_exception(c: ScriptCallback, job: str) -> None:
    errors.report(f"Error executing callback {job} for {c.script}", exc_info=True)


def add_callback(
    callbacks: list[ScriptCallback],
    fun: Any,
    *,
    name: str | None = None,
    category: str = "unknown",
    filename: str | None = None,
) -> None:
    """Append `fun`; the file that owns it is found in the call stack unless given."""
    if filename is None:
        stack = [x.filename for x in inspect.stack(0) if x.filename != __file__]
        filename = stack[0] if stack else "unknown file"
    extension = extensions.find_extension(filename)
    parts = [extension.canonical_name if extension else "base", os.path.basename(filename), category]
    base = "/".join([*parts, name] if name is not None else parts)
    taken = {x.name for x in callbacks}
    unique = next(x for x in (base, *(f"{base}-{i}" for i in range(1, 1000))) if x not in taken)
    callbacks.append(ScriptCallback(filename, fun, unique))


def _by_metadata(callbacks: list[ScriptCallback]) -> list[ScriptCallback]:
    known = {x.name.lower(): x for x in callbacks}
    orders = [x for e in extensions.extensions for x in e.metadata.callback_order() if x[0].lower() in known]
    if not orders:
        return callbacks
    dependencies: dict[str, list[str]] = {name: [] for name in known}
    for name, before, after in orders:
        dependencies[name.lower()] += [x for x in after if x in known]
        for other in before:
            if other in known:
                dependencies[other].append(name.lower())
    return [known[x] for x in util.topological_sort(dependencies)]


def sort_callbacks(
    category: str, unordered_callbacks: list[ScriptCallback], *, enable_user_sort: bool = True
) -> list[ScriptCallback]:
    """Order of registration, changed by extensions' metadata and then by the user's setting."""
    callbacks = _by_metadata(unordered_callbacks.copy())
    wanted = shared.opts.data.get("prioritized_callbacks_" + category, []) if enable_user_sort else []
    for name in reversed(wanted):
        first = [x for x in callbacks if x.name == name]
        callbacks = first + [x for x in callbacks if x.name != name]
    return callbacks


def ordered_callbacks(
    category: str, unordered_callbacks: list[ScriptCallback] | None = None, *, enable_user_sort: bool = True
) -> list[ScriptCallback]:
    """Callbacks of a category in their order, which is found anew when their number has changed."""
    found = callback_map.get("callbacks_" + category, []) if unordered_callbacks is None else unordered_callbacks
    if not enable_user_sort:
        return sort_callbacks(category, found, enable_user_sort=False)
    cached = ordered_callbacks_map.get(category)
    if cached is None or len(cached) != len(found):
        cached = ordered_callbacks_map[category] = sort_callbacks(category, found)
    return cached


def clear_callbacks() -> None:
    for callbacks in callback_map.values():
        callbacks.clear()
    ordered_callbacks_map.clear()


def _dispatch(category: str, job: str, *args: Any, **kwargs: Any) -> list[Any]:
    return _call_all(ordered_callbacks(category), job, *args, **kwargs)


def _call_all(callbacks: Iterable[ScriptCallback], job: str, *args: Any, **kwargs: Any) -> list[Any]:
    """What they give; those that raise are reported and left out."""
    results = []
    for c in callbacks:
        try:
            results.append(c.callback(*args, **kwargs))
        except Exception:  # noqa: BLE001 - the host's rule: a callback never stops the job
            report_exception(c, job)
    return results


def app_started_callback(demo: Any, app: Any) -> None:
    _dispatch("app_started", "app_started_callback", demo, app)


def app_reload_callback() -> None:
    _dispatch("on_reload", "callbacks_on_reload")


def model_loaded_callback(sd_model: Any) -> None:
    _dispatch("model_loaded", "model_loaded_callback", sd_model)


def ui_tabs_callback() -> list[Any]:
    return [x for result in _dispatch("ui_tabs", "ui_tabs_callback") for x in result or []]


def ui_train_tabs_callback(params: UiTrainTabParams) -> None:
    _dispatch("ui_train_tabs", "callbacks_ui_train_tabs", params)


def ui_settings_callback() -> None:
    _dispatch("ui_settings", "ui_settings_callback")


def before_image_saved_callback(params: ImageSaveParams) -> None:
    _dispatch("before_image_saved", "before_image_saved_callback", params)


def image_saved_callback(params: ImageSaveParams) -> None:
    _dispatch("image_saved", "image_saved_callback", params)


def extra_noise_callback(params: ExtraNoiseParams) -> None:
    _dispatch("extra_noise", "callbacks_extra_noise", params)


def cfg_denoiser_callback(params: CFGDenoiserParams) -> None:
    _dispatch("cfg_denoiser", "cfg_denoiser_callback", params)


def cfg_denoised_callback(params: CFGDenoisedParams) -> None:
    _dispatch("cfg_denoised", "cfg_denoised_callback", params)


def cfg_after_cfg_callback(params: AfterCFGCallbackParams) -> None:
    _dispatch("cfg_after_cfg", "cfg_after_cfg_callback", params)


def before_component_callback(component: Any, **kwargs: Any) -> None:
    _dispatch("before_component", "before_component_callback", component, **kwargs)


def after_component_callback(component: Any, **kwargs: Any) -> None:
    _dispatch("after_component", "after_component_callback", component, **kwargs)


def image_grid_callback(params: ImageGridLoopParams) -> None:
    _dispatch("image_grid", "image_grid", params)


def infotext_pasted_callback(infotext: str, params: dict[str, Any]) -> None:
    _dispatch("infotext_pasted", "infotext_pasted", infotext, params)


def script_unloaded_callback() -> None:
    """Callbacks of scripts that go away, last registered first."""
    _call_all(reversed(ordered_callbacks("script_unloaded")), "script_unloaded")


def before_ui_callback() -> None:
    _dispatch("before_ui", "before_ui")


def list_optimizers_callback() -> list[Any]:
    found: list[Any] = []
    _dispatch("list_optimizers", "list_optimizers", found)
    return found


def list_unets_callback() -> list[Any]:
    found: list[Any] = []
    _dispatch("list_unets", "list_unets", found)
    return found


def before_token_counter_callback(params: BeforeTokenCounterParams) -> None:
    _dispatch("before_token_counter", "before_token_counter", params)


def remove_current_script_callbacks() -> None:
    """Remove the callbacks of the file that calls this."""
    stack = [x.filename for x in inspect.stack(0) if x.filename != __file__]
    filename = stack[0] if stack else "unknown file"
    for callbacks in callback_map.values():
        callbacks[:] = [x for x in callbacks if x.script != filename]
    ordered_callbacks_map.clear()


def remove_callbacks_for_function(callback_func: Any) -> None:
    for callbacks in callback_map.values():
        callbacks[:] = [x for x in callbacks if x.callback != callback_func]
    ordered_callbacks_map.clear()


def _registrar(category: str) -> Callable[..., None]:
    def register(callback: Any, *, name: str | None = None) -> None:
        add_callback(callback_map["callbacks_" + category], callback, name=name, category=category)

    register.__doc__ = f"Call `callback` at the event {category!r}."
    return register


on_app_started = _registrar("app_started")
on_before_reload = _registrar("on_reload")
on_model_loaded = _registrar("model_loaded")
on_ui_tabs = _registrar("ui_tabs")
on_ui_train_tabs = _registrar("ui_train_tabs")
on_ui_settings = _registrar("ui_settings")
on_before_image_saved = _registrar("before_image_saved")
on_image_saved = _registrar("image_saved")
on_extra_noise = _registrar("extra_noise")
on_cfg_denoiser = _registrar("cfg_denoiser")
on_cfg_denoised = _registrar("cfg_denoised")
on_cfg_after_cfg = _registrar("cfg_after_cfg")
on_before_component = _registrar("before_component")
on_after_component = _registrar("after_component")
on_image_grid = _registrar("image_grid")
on_infotext_pasted = _registrar("infotext_pasted")
on_script_unloaded = _registrar("script_unloaded")
on_before_ui = _registrar("before_ui")
on_list_optimizers = _registrar("list_optimizers")
on_list_unets = _registrar("list_unets")
on_before_token_counter = _registrar("before_token_counter")
