"""The settings tab, built from the registered options."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from modules import call_queue, gradio_versions, script_callbacks, shared
from modules.options import OptionInfo
from modules.ui_common import create_refresh_button

import gradio as gr  # isort: skip

COMPONENTS: dict[str, Any] = {
    "Slider": gr.Slider,
    "Radio": gr.Radio,
    "Dropdown": gr.Dropdown,
    "Number": gr.Number,
    "HTML": gr.HTML,
}
QUICKSETTINGS = ("sd_model_checkpoint",)


def _component_class(info: OptionInfo) -> Any:
    if isinstance(info.component, str):
        return COMPONENTS[info.component]
    if info.component is not None:
        return info.component
    kind = type(info.default)
    if kind is bool:
        return gr.Checkbox
    if kind in (int, float):
        return gr.Number
    if kind in (str, list, type(None)):
        return gr.Textbox
    raise TypeError(f"bad options item type: {kind} for {info.label}")


def create_setting_component(key: str, is_quicksettings: bool = False) -> Any:
    """The widget of one setting, showing its present value."""
    info = shared.opts.data_labels[key]
    if info.do_not_save:
        return gr.HTML(value=str(info.default), elem_classes="settings-info")
    args: Any = info.component_args() if callable(info.component_args) else dict(info.component_args or {})
    elem_id = f"setting_{key}"
    value = shared.opts.data.get(key, info.default)
    kind = _component_class(info)
    if kind is gr.Textbox and isinstance(value, list):
        value = ", ".join(map(str, value))
    if info.refresh is None:
        return kind(label=info.label, value=value, elem_id=elem_id, **args)
    with gr.Row(elem_classes="setting-with-refresh"):
        component = kind(label=info.label, value=value, elem_id=elem_id, **args)
        create_refresh_button(component, info.refresh, info.component_args, f"refresh_{elem_id}")
    return component


def _cast(key: str, value: Any) -> Any:
    """The widget's value in the type of the setting."""
    default = shared.opts.data_labels[key].default
    if isinstance(default, list) and isinstance(value, str):
        return [x.strip() for x in value.split(",") if x.strip()]
    if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _load_chosen_checkpoint() -> None:
    from modules import sd_models

    sd_models.reload_model_weights()


class UiSettings:
    """Widgets of all settings by key, and the actions on them."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        self.submit: Any = None
        self.restart: Any = None
        self.result: Any = None

    def register_settings(self) -> None:
        """Let the extensions add theirs."""
        script_callbacks.ui_settings_callback()

    def _editable(self) -> list[str]:
        return [k for k, v in shared.opts.data_labels.items() if not v.do_not_save and (v.section or (None,))[0]]

    def run_settings(self, *values: Any) -> str:
        changed = [k for k, v in zip(self._shown, values, strict=True) if shared.opts.set(k, _cast(k, v))]
        shared.opts.save(shared.config_filename)
        return f"{len(changed)} settings changed{': ' + ', '.join(changed) if changed else ''}."

    def run_settings_single(self, key: str) -> Callable[[Any], Any]:
        """Handler of a setting above the tabs: takes effect at once."""

        def change(value: Any) -> Any:
            with call_queue.queue_lock:
                if shared.opts.set(key, _cast(key, value)):
                    shared.opts.save(shared.config_filename)
                    if key == "sd_model_checkpoint":
                        _load_chosen_checkpoint()
            return gr.update(value=shared.opts.data.get(key))

        return change

    def create_quicksettings(self) -> None:
        with gr.Row(elem_id="quicksettings", variant="compact"):
            for key in QUICKSETTINGS:
                component = create_setting_component(key, is_quicksettings=True)
                component.change(
                    self.run_settings_single(key), inputs=[component], outputs=[component], show_progress="full"
                ).then(fn=None, **gradio_versions.script("loadOptions"))
                self.components[key] = component

    def create_ui(self) -> Any:
        """The settings tab as its own page."""
        sections: dict[tuple[Any, str], list[str]] = {}
        for key in self._editable():
            if key not in QUICKSETTINGS:
                sections.setdefault(shared.opts.data_labels[key].section or ("other", "Other"), []).append(key)
        with gr.Blocks(analytics_enabled=False) as page:
            with gr.Row():
                self.submit = gr.Button("Apply settings", variant="primary", elem_id="settings_submit")
                self.restart = gr.Button("Reload UI", elem_id="settings_restart_gradio")
            if shared.opts.problems:
                lines = "".join(f"<p>{html.escape(problem)}.</p>" for problem in shared.opts.problems)
                gr.HTML(lines, elem_id="settings_problems")
            self.result = gr.HTML(elem_id="settings_result")
            with gr.Tabs(elem_id="settings"):
                for (name, title), keys in sections.items():
                    with gr.TabItem(title, elem_id=f"settings_{name}", id=str(name)):
                        for key in keys:
                            self.components[key] = create_setting_component(key)
        self._shown = [k for k in self.components if k not in QUICKSETTINGS]
        shared.settings_components = self.components
        return page

    def add_functionality(self) -> None:
        shown = [self.components[k] for k in self._shown]
        self.submit.click(call_queue.wrap_gradio_call_no_job(lambda *v: [self.run_settings(*v)], extra_outputs=[]),
                          inputs=shown, outputs=[self.result])  # fmt: skip
        reload = gradio_versions.script("restart_reload")
        self.restart.click(shared.state.request_restart, inputs=[], outputs=[], **reload)
