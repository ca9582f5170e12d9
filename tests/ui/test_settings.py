"""The settings page: exactly the options that are read, with usable defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lib_controlnet.core.settings import OPTIONS
from lib_controlnet.core.units import configured_units
from lib_controlnet.ui import settings

PRODUCT = Path(settings.__file__).resolve().parents[1]
READ = re.compile(r"""setting\(\s*["'](\w+)["']\s*,\s*([^)]+?)\s*\)""")


class OptionInfo:
    """The host's, as far as a page of settings is concerned."""

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: dict[str, Any] | None = None,
        section: tuple[str, str] | None = None,
        restrict_api: bool = False,
    ) -> None:
        self.default = default
        self.label = label
        self.component = component
        self.component_args = component_args
        self.section = section
        self.restrict_api = restrict_api
        self.reload = False

    def needs_reload_ui(self) -> OptionInfo:
        self.reload = True
        return self


class Options:
    def __init__(self) -> None:
        self.added: dict[str, OptionInfo] = {}

    def add_option(self, key: str, option: OptionInfo) -> None:
        assert key not in self.added
        self.added[key] = option


class Shared:
    OptionInfo = OptionInfo

    def __init__(self) -> None:
        self.opts = Options()


@pytest.fixture
def options() -> dict[str, OptionInfo]:
    shared = Shared()
    settings.register(shared, None)
    return shared.opts.added


def reads() -> dict[str, set[str]]:
    """Option -> the defaults with which the product reads it."""
    found: dict[str, set[str]] = {}
    for path in PRODUCT.rglob("*.py"):
        for key, default in READ.findall(path.read_text("utf-8")):
            found.setdefault(key, set()).add(default)
    return found


def read_by_the_page() -> set[str]:
    """Options that the page's script reads."""
    scripts = (PRODUCT.parent / "javascript").rglob("*.mjs")
    return {key for path in scripts for key in re.findall(r"\bopts\.(control\w+)", path.read_text("utf-8"))}


def test_every_option_is_read_and_every_read_option_is_there(options: dict[str, OptionInfo]) -> None:
    assert set(options) == set(reads()) | read_by_the_page()


def test_defaults_agree_with_those_of_the_readers(options: dict[str, OptionInfo]) -> None:
    for key, defaults in reads().items():
        assert {repr(options[key].default)} == {default.replace('"', "'") for default in defaults}, key


def test_registered_options_are_those_of_the_typed_table(options: dict[str, OptionInfo]) -> None:
    assert {key: option.default for key, option in options.items()} == {
        key: option.default for key, option in OPTIONS.items()
    }


def test_options_stand_in_the_peers_section_with_a_label(options: dict[str, OptionInfo]) -> None:
    for key, option in options.items():
        assert option.section == ("control_net", "ControlNet"), key
        assert option.label, key


def test_what_changes_the_page_says_so(options: dict[str, OptionInfo]) -> None:
    assert {key for key, option in options.items() if option.reload} == {
        "control_net_unit_count",
        "controlnet_control_type_dropdown",
        "controlnet_disable_openpose_edit",
    }


def test_what_opens_a_door_is_changed_on_the_page_only(options: dict[str, OptionInfo]) -> None:
    """Code, downloads, training and every folder: each option with a word of these in its key or label is closed."""
    doors = re.compile(r"trust|download|training|\bpath|folder|director|\bdir\b", re.IGNORECASE)
    for key, option in options.items():
        assert option.restrict_api == bool(doors.search(f"{key} {option.label}".replace("_", " "))), key


@pytest.mark.parametrize(("stored", "count"), [(3.0, 3), (1, 1), (0, 1), (40, 10)])
def test_unit_count_is_a_sane_number(stored: float, count: int) -> None:
    assert configured_units(lambda key, default: stored) == count
