"""`ScriptRunner`: the scripts of one tab, their place in the argument tuple, and their callbacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modules import errors, script_callbacks, shared
from modules.scripts_args import AlwaysVisible, OnComponent

HEADLESS_SLOTS = 64
"""Arguments every always-on script gets where no page (and no gradio) gives it components."""


def wrap_call(func: Callable[..., Any], filename: str, funcname: str, *args: Any, default: Any = None) -> Any:
    """What `func` gives; `default` where it fails, which is reported."""
    try:
        return func(*args)
    except Exception:  # noqa: BLE001 - the host's rule
        errors.report(f"Error calling: {filename}/{funcname}", exc_info=True)
        return default


def _title(script: Any) -> str:
    return wrap_call(script.title, script.filename, "title") or script.filename


def _instance(data: Any, is_img2img: bool) -> Any:
    """A script of a tab; None when its class cannot be made."""
    try:
        script = data.script_class()
    except Exception:  # noqa: BLE001 - the host's rule
        errors.report(f"Error # failed to initialize Script {data.module}: ", exc_info=True)
        return None
    script.filename = data.path
    script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
    script.tabname = "img2img" if is_img2img else "txt2img"
    return script


@dataclass(eq=False)
class ScriptRunner:
    """All scripts of one tab. `inputs[0]` is the dropdown of selectable scripts, then come all controls."""

    scripts: list[Any] = field(default_factory=list)
    alwayson_scripts: list[Any] = field(default_factory=list)
    selectable_scripts: list[Any] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    title_map: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=lambda: [None])
    infotext_fields: list[Any] = field(default_factory=list)
    paste_field_names: list[str] = field(default_factory=list)
    callback_map: dict[str, tuple[int, list[Any]]] = field(default_factory=dict)
    on_before_component_elem_id: dict[str, list[Any]] = field(default_factory=dict)
    on_after_component_elem_id: dict[str, list[Any]] = field(default_factory=dict)

    # creation

    def initialize_scripts(self, is_img2img: bool) -> None:
        """Instances of all loaded script classes, sorted into always-on and selectable by `show()`."""
        from modules import scripts

        made = [_instance(data, is_img2img) for data in scripts.scripts_data]
        shown = [(x, x.show(is_img2img)) for x in made if x is not None]
        self.scripts[:] = [x for x, visibility in shown if visibility]
        self.alwayson_scripts[:] = [x for x, visibility in shown if visibility is AlwaysVisible]
        self.selectable_scripts[:] = [x for x in self.scripts if x not in self.alwayson_scripts]
        for script in self.alwayson_scripts:
            script.alwayson = True
        self.apply_on_before_component_callbacks()
        self.callback_map.clear()

    def apply_on_before_component_callbacks(self) -> None:
        """Takes over what scripts want called when a widget with an id is made."""
        for name in ("on_before_component_elem_id", "on_after_component_elem_id"):
            for script in self.scripts:
                wanted = getattr(script, name) or []
                for elem_id, callback in wanted:
                    getattr(self, name).setdefault(elem_id, []).append((callback, script))
                wanted.clear()

    def prepare_ui(self) -> None:
        self.inputs = [None]

    def create_script_ui(self, script: Any) -> None:
        script.args_from = script.args_to = len(self.inputs)
        try:
            self._create_script_ui(script)
        except Exception:  # noqa: BLE001 - the host's rule
            errors.report(f"Error creating UI for {script.name}: ", exc_info=True)

    def _create_script_ui(self, script: Any) -> None:
        script.controls = controls = wrap_call(script.ui, script.filename, "ui", script.is_img2img)
        if controls is None:
            return
        script.name = _title(script).lower()
        for control in controls:
            control.custom_script_source = os.path.basename(script.filename)
        from modules.api import script_info

        script.api_info = script_info.describe(script, controls)
        self.infotext_fields += script.infotext_fields or []
        self.paste_field_names += script.paste_field_names or []
        self.inputs += list(controls)
        script.args_to = len(self.inputs)

    def setup_headless(self) -> None:
        """Give every script its argument range without creating widgets (no gradio needed)."""
        self.inputs = [None]
        self._collect_titles()
        for script in self.scripts:
            script.name = _title(script).lower()
            script.args_from = len(self.inputs)
            self.inputs += [None] * HEADLESS_SLOTS
            script.args_to = len(self.inputs)

    def setup_ui_for_section(self, section: str | None, scriptlist: list[Any] | None = None) -> None:
        """Create the widgets of the always-on scripts that belong into `section` (or of `scriptlist`)."""
        import gradio as gr

        for script in self.alwayson_scripts if scriptlist is None else scriptlist:
            if script.alwayson and script.section != section:
                continue
            if not script.create_group:
                self.create_script_ui(script)
                continue
            with gr.Group(visible=script.alwayson) as group:
                self.create_script_ui(script)
            script.group = group

    def _collect_titles(self) -> None:
        named = [(_title(x), x) for x in self.scripts]
        self.title_map = {title.lower(): script for title, script in named}
        self.titles = [title for title, script in named if script in self.selectable_scripts]

    def setup_ui(self) -> list[Any]:
        """Widgets of section None: always-on scripts, the dropdown, selectable scripts."""
        import gradio as gr

        self._collect_titles()
        self.setup_ui_for_section(None)
        dropdown = gr.Dropdown(
            label="Script", elem_id="script_list", choices=["None", *self.titles], value="None", type="index"
        )
        self.inputs[0] = dropdown
        self.setup_ui_for_section(None, self.selectable_scripts)

        def select_script(index: int | None) -> list[Any]:
            return [gr.update(visible=bool(index) and i == index - 1) for i in range(len(self.selectable_scripts))]

        if self.selectable_scripts:
            dropdown.change(select_script, inputs=[dropdown], outputs=[x.group for x in self.selectable_scripts])
        self.apply_on_before_component_callbacks()
        return self.inputs

    # running

    def run(self, p: Any, *args: Any) -> Any:
        """Run the selected script; None when none is selected."""
        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        processed = script.run(p, *args[script.args_from : script.args_to])
        shared.total_tqdm.clear()
        return processed

    def list_scripts_for_method(self, method_name: str) -> list[Any]:
        return self.scripts if method_name in ("before_component", "after_component") else self.alwayson_scripts

    def create_ordered_callbacks_list(self, method_name: str, *, enable_user_sort: bool = True) -> list[Any]:
        from modules.scripts import Script

        callbacks: list[Any] = []
        category = f"script_{method_name}"
        for script in self.list_scripts_for_method(method_name):
            if getattr(type(script), method_name, None) == getattr(Script, method_name, None):
                continue
            script_callbacks.add_callback(
                callbacks, script, category=category, name=type(script).__name__, filename=script.filename
            )
        return script_callbacks.sort_callbacks(category, callbacks, enable_user_sort=enable_user_sort)

    def ordered_callbacks(self, method_name: str, *, enable_user_sort: bool = True) -> list[Any]:
        count = len(self.list_scripts_for_method(method_name))
        known, callbacks = self.callback_map.get(f"script_{method_name}", (-1, []))
        if known != count:
            callbacks = self.create_ordered_callbacks_list(method_name, enable_user_sort=enable_user_sort)
            self.callback_map[f"script_{method_name}"] = count, callbacks
        return callbacks

    def ordered_scripts(self, method_name: str) -> list[Any]:
        return [x.callback for x in self.ordered_callbacks(method_name)]

    def _call(self, method: str, p: Any, *extra: Any, **kwargs: Any) -> None:
        """`method(p, *extra, *own script args, **kwargs)` of each script; exceptions are reported, not raised."""
        self._call_each(self.ordered_scripts(method), method, p, *extra, **kwargs)

    def _call_each(self, scripts: list[Any], method: str, p: Any, *extra: Any, **kwargs: Any) -> None:
        for script in scripts:
            try:
                own = p.script_args[script.args_from : script.args_to]
                getattr(script, method)(p, *extra, *own, **kwargs)
            except Exception:  # noqa: BLE001 - the host's rule: generation continues
                errors.report(f"Error running {method}: {script.filename}", exc_info=True)

    def setup_scrips(self, p: Any, *, is_ui: bool = True) -> None:
        wanted = [x for x in self.ordered_scripts("setup") if is_ui or not x.setup_for_ui_only]
        self._call_each(wanted, "setup", p)

    def before_process(self, p: Any) -> None:
        self._call("before_process", p)

    def process(self, p: Any) -> None:
        self._call("process", p)

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        self._call("process_before_every_sampling", p, **kwargs)

    def before_process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("before_process_batch", p, **kwargs)

    def after_extra_networks_activate(self, p: Any, **kwargs: Any) -> None:
        self._call("after_extra_networks_activate", p, **kwargs)

    def process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("process_batch", p, **kwargs)

    def postprocess(self, p: Any, processed: Any) -> None:
        self._call("postprocess", p, processed)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        self._call("postprocess_batch", p, images=images, **kwargs)

    def postprocess_batch_list(self, p: Any, pp: Any, **kwargs: Any) -> None:
        self._call("postprocess_batch_list", p, pp, **kwargs)

    def post_sample(self, p: Any, ps: Any) -> None:
        self._call("post_sample", p, ps)

    def on_mask_blend(self, p: Any, mba: Any) -> None:
        self._call("on_mask_blend", p, mba)

    def postprocess_image(self, p: Any, pp: Any) -> None:
        self._call("postprocess_image", p, pp)

    def postprocess_maskoverlay(self, p: Any, ppmo: Any) -> None:
        self._call("postprocess_maskoverlay", p, ppmo)

    def postprocess_image_after_composite(self, p: Any, pp: Any) -> None:
        self._call("postprocess_image_after_composite", p, pp)

    def before_hr(self, p: Any) -> None:
        self._call("before_hr", p)

    # widgets being created

    def before_component(self, component: Any, **kwargs: Any) -> None:
        self._component("before_component", self.on_before_component_elem_id, kwargs.get("elem_id"), component, kwargs)

    def after_component(self, component: Any, **kwargs: Any) -> None:
        elem_id = getattr(component, "elem_id", None)
        self._component("after_component", self.on_after_component_elem_id, elem_id, component, kwargs)

    def _component(
        self, method: str, by_id: dict[str, list[Any]], elem_id: str | None, component: Any, kwargs: dict[str, Any]
    ) -> None:
        for callback, script in by_id.get(elem_id or "", []):
            try:
                callback(OnComponent(component=component))
            except Exception:  # noqa: BLE001 - the host's rule
                errors.report(f"Error running on_{method}: {script.filename}", exc_info=True)
        for script in self.ordered_scripts(method):
            try:
                getattr(script, method)(component, **kwargs)
            except Exception:  # noqa: BLE001 - the host's rule
                errors.report(f"Error running {method}: {script.filename}", exc_info=True)

    def script(self, title: str) -> Any:
        return self.title_map.get(title.lower())
