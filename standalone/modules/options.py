"""The settings store: `OptionInfo` describes one setting, `Options` holds all values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

from modules import errors
from modules.shared_cmd_options import cmd_opts

from lib_controlnet.core.files import put_aside, write_whole

OPTION = {
    "default": None, "label": "", "component": None, "component_args": None, "onchange": None, "section": None,
    "refresh": None, "comment_before": "", "comment_after": "", "infotext": None, "restrict_api": False,
    "category_id": None,
}  # fmt: skip
"""What an option is made from, in this order."""

_Fields: Any = make_dataclass("_Fields", [(name, Any, field(default=x)) for name, x in OPTION.items()], eq=False)


class OptionInfo(_Fields):
    """One setting: its default, its label, and how the settings page shows it."""

    do_not_save = False

    def html(self, html: str) -> OptionInfo:
        """`html` after the label; further calls append."""
        self.comment_after += html
        return self

    def info(self, info: str) -> OptionInfo:
        return self.html(f"<span class='info'>({info})</span>")

    def needs_restart(self) -> OptionInfo:
        return self.html(" <span class='info'>(requires restart)</span>")

    def needs_reload_ui(self) -> OptionInfo:
        return self.html(" <span class='info'>(requires Reload UI)</span>")

    def _in_front(self, label: str, action: str) -> OptionInfo:
        self.comment_before += f"[<a {action}>{label}</a>]"
        return self

    def link(self, label: str, url: str) -> OptionInfo:
        return self._in_front(label, f"href='{url}' target='_blank'")

    def js(self, label: str, js_func: str) -> OptionInfo:
        return self._in_front(label, f"onclick='{js_func}(); return false'")


class OptionHTML(OptionInfo):
    """A piece of text on the settings page; never saved."""

    do_not_save = True

    def __init__(self, text: str) -> None:
        super().__init__(str(text).strip(), component="HTML")


def options_section(identifier: tuple[Any, ...], options: dict[str, OptionInfo]) -> dict[str, OptionInfo]:
    """Put all `options` into one section `(id, title[, category])`."""
    for option in options.values():
        option.section = (identifier[0], identifier[1])
        if len(identifier) == 3:
            option.category_id = identifier[2]
    return options


class OnThePageOnly(ValueError):
    """A job would change settings that open a door (code, downloads, folders); the API answers 422."""

    def __init__(self, keys: list[str]) -> None:
        self.status_code = 422
        self.detail = f"override_settings: {', '.join(keys)} can be changed on the page Settings only"
        super().__init__(self.detail)


FIELDS = {"data_labels", "data", "restricted_opts", "typemap", "problems"}


def _fits(value: Any, default: Any) -> bool:
    """Whether a saved value can stand where the default does; numbers of both kinds stand for one another."""
    if default is None:
        return True
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, type(default))


class Options:
    """Values of all settings. Unknown attributes raise AttributeError, as in the real host."""

    typemap = {int: float}

    def __init__(self, data_labels: dict[str, OptionInfo], restricted_opts: set[str]) -> None:
        self.data_labels, self.restricted_opts = data_labels, restricted_opts
        self.data: dict[str, Any] = {k: v.default for k, v in data_labels.items() if not v.do_not_save}
        self.problems: list[str] = []

    def __setattr__(self, key: str, value: Any) -> None:
        if key in FIELDS or not (key in self.data or key in self.data_labels):
            object.__setattr__(self, key, value)
            return
        info = self.data_labels.get(key)
        if info is not None and info.do_not_save:
            return
        self._check_frozen(key, info)
        self.data[key] = value

    def _check_frozen(self, key: str, info: OptionInfo | None) -> None:
        assert not cmd_opts.freeze_settings, "changing settings is disabled"
        arguments = info.component_args if info else None
        if isinstance(arguments, dict) and arguments.get("visible", True) is False:
            raise RuntimeError(f"not possible to set {key!r} because it is restricted")
        sections = [x.strip() for x in (cmd_opts.freeze_settings_in_sections or "").split(",") if x.strip()]
        keys = [x.strip() for x in (cmd_opts.freeze_specific_settings or "").split(",") if x.strip()]
        frozen = key in keys or (info is not None and info.section is not None and info.section[0] in sections)
        assert not frozen, f"not possible to set {key!r} because it is frozen"
        if cmd_opts.hide_ui_dir_config and key in self.restricted_opts:
            raise RuntimeError(f"not possible to set {key!r} because it is restricted with --hide-ui-dir-config")

    def __getattr__(self, item: str) -> Any:
        if item in FIELDS:
            raise AttributeError(item)
        if item not in self.data and item not in self.data_labels:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")
        return self.data[item] if item in self.data else self.data_labels[item].default

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Set an option and run its `onchange`; True when the value changed."""
        old = self.data.get(key)
        if old == value:
            return False
        option = self.data_labels[key]
        closed = option.do_not_save or (is_api and option.restrict_api)
        if closed or not self._put(key, value):
            return False
        if not run_callbacks or option.onchange is None:
            return True
        try:
            option.onchange()
        except Exception as e:  # noqa: BLE001 - the setting goes back to what it was
            errors.display(e, f"changing setting {key} to {value}")
            self._put(key, old)
            return False
        return True

    def _put(self, key: str, value: Any) -> bool:
        """Whether the setting could be set."""
        try:
            setattr(self, key, value)
        except RuntimeError:
            return False
        return True

    def restricted(self, values: Mapping[str, Any]) -> list[str]:
        """The settings with `restrict_api` that a request's `values` would change."""
        labels = self.data_labels
        return [k for k, v in values.items() if k in labels and labels[k].restrict_api and self.data.get(k) != v]

    def get_default(self, key: str) -> Any:
        info = self.data_labels.get(key)
        return None if info is None else info.default

    def save(self, filename: str) -> None:
        assert not cmd_opts.freeze_settings, "saving settings is disabled"
        text = json.dumps(self.data, indent=4, ensure_ascii=False)
        if not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8"):  # a lone surrogate
            text = json.dumps(self.data, indent=4)
        write_whole(Path(filename), text)

    def load(self, filename: str) -> None:
        """Read saved values; unregistered keys are kept, an extension may register them later.

        A file that cannot be read is put aside, a value of a wrong type gives way to the default: both are printed and
        kept in `problems`, which the settings page shows.
        """
        self.problems = []
        self.data = self._read(Path(filename))
        for key, info in self.data_labels.items():
            if info.do_not_save:
                continue
            value = self.data.setdefault(key, info.default)
            if not _fits(value, info.default):
                wanted = type(info.default).__name__
                self._say(f"the setting {key} is {value!r:.60} instead of a {wanted}; {info.default!r} is used")
                self.data[key] = info.default

    def _read(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            return {}
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise ValueError(f"a {type(data).__name__} instead of a table of settings")
        except (OSError, ValueError, RecursionError) as error:
            aside = put_aside(file)
            place = "It could not be put aside" if aside is None else f"It is kept as {aside}"
            self._say(f"The settings file {file} cannot be read ({error}). {place}. All settings are at their defaults")
            return {}
        return data

    def _say(self, problem: str) -> None:
        self.problems.append(problem)
        errors.report(problem)

    def same_type(self, x: Any, y: Any) -> bool:
        if x is None or y is None:
            return True
        return self.typemap.get(type(x), type(x)) == self.typemap.get(type(y), type(y))

    def onchange(self, key: str, func: Callable[[], Any], call: bool = True) -> None:
        self.data_labels[key].onchange = func
        if call:
            func()

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info
        if not info.do_not_save:
            self.data.setdefault(key, info.default)

    def reorder(self) -> None:
        """Keep options of one section together, sections in the order of their first option."""
        order: dict[Any, int] = {}
        for info in self.data_labels.values():
            order.setdefault(info.section, len(order))
        self.data_labels = dict(sorted(self.data_labels.items(), key=lambda x: order[x[1].section]))

    def dumpjson(self) -> str:
        return json.dumps({k: self.data.get(k, v.default) for k, v in self.data_labels.items()}, default=str)

    def cast_value(self, key: str, value: Any) -> Any:
        """`value` (often a string of an infotext) in the type of the setting's default."""
        if value is None:
            return None
        default = self.get_default(key)
        if default is None:
            default = getattr(self, key, None)
        if default is None:
            return None
        if isinstance(default, bool) and value in ("False", False, 0):
            return False
        return type(default)(value)
