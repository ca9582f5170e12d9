"""Options of any type: none makes a reader raise, and each that is not used as it is is named."""

from __future__ import annotations

import ast
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_controlnet.core.settings import MISSING, OPTIONS, Settings

ROOT = Path(__file__).resolve().parents[2]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def reading(value: Any) -> Settings:
    return Settings(lambda _key: value)


@given(VALUES, st.sampled_from(sorted(OPTIONS)))
def test_any_value_gives_one_of_the_right_type(value: Any, key: str) -> None:
    read, option = reading(value)(key), OPTIONS[key]
    assert type(read) is type(option.default)
    if not isinstance(read, (bool, str)):
        assert option.low <= read <= option.high
    if option.choices:
        assert read in option.choices
    named = any(key in problem for problem in reading(value).problems())
    assert named or read == value


@pytest.mark.parametrize("key", sorted(OPTIONS))
def test_defaults_and_missing_options_are_no_problem(key: str) -> None:
    for value in (OPTIONS[key].default, MISSING):
        assert reading(value)(key) == OPTIONS[key].default
        assert not [problem for problem in reading(value).problems() if f" {key} " in problem]


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("control_net_unit_count", "5", 5),
        ("control_net_unit_count", 5.0, 5),
        ("control_net_unit_count", 99, 10),
        ("control_net_unit_count", -1, 1),
        ("control_net_unit_count", math.nan, 3),
        ("control_net_unit_count", 10**400, 3),
        ("control_net_unit_count", "9" * 5000, 3),
        ("control_net_unit_count", [4], 3),
        ("control_net_unit_count", True, 3),
        ("control_net_models_path", 5, ""),
        ("control_net_models_path", None, ""),
        ("control_net_models_name_filter", 7, ""),
        ("control_net_models_sort_models_by", "size", "name"),
        ("control_net_models_sort_models_by", ["date"], "name"),
        ("controlnet_allow_training", "false", False),  # which is true to Python
        ("controlnet_allow_training", 1, True),
        ("controlnet_allow_training", 2, False),
        ("controlnet_allow_training", [], False),
        ("control_net_sync_field_args", None, True),
        ("controlnet_trusted_files", ["a" * 64], ""),
    ],
)
def test_wrong_types_are_replaced_and_named_once(
    caplog: pytest.LogCaptureFixture, key: str, value: Any, read: Any
) -> None:
    settings = Settings(lambda asked: value if asked == key else MISSING)
    with caplog.at_level(logging.WARNING):
        assert [settings(key), settings(key)] == [read, read]
    assert type(settings(key)) is type(read)
    wrong = value != read or type(value) is not float  # hosts hand whole numbers back as floats
    assert len(caplog.records) == len(settings.problems()) == wrong
    assert all(key in problem and len(problem) < 250 for problem in settings.problems())


def test_every_option_that_is_read_is_in_the_table() -> None:
    """One place for name, type and default: whoever reads one must agree with it."""
    read: dict[str, Any] = {}
    for folder in ("lib_controlnet", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(call, ast.Call) or len(call.args) != 2:
                    continue
                name = getattr(call.func, "id", getattr(call.func, "attr", ""))
                if name == "setting" and isinstance(call.args[0], ast.Constant):
                    read[call.args[0].value] = ast.literal_eval(call.args[1])
    assert len(read) > 15
    assert {key: OPTIONS[key].default for key in read} == read
