"""Axes of the X/Y/Z plot and the attributes of other scripts act on the units of a job."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lib_controlnet.core.overrides import REMOTE
from tests.hosts.conftest import Host, as_base64, picture, pixels, unit


@dataclass
class AxisOption:
    """As the host's script has it."""

    label: str
    type: type
    apply: Any
    cost: float = 0.0
    choices: Any = None


@pytest.fixture
def axes(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, AxisOption]:
    """The axes by label after the page has been made twice."""
    scripts = host.app.modules("scripts")
    grid = SimpleNamespace(axis_options=[AxisOption("Seed", int, None)], AxisOption=AxisOption)
    data = SimpleNamespace(module=grid, script_class=type("Script", (), {"__module__": "xyz_grid.py"}))
    monkeypatch.setattr(scripts, "scripts_data", [*scripts.scripts_data, data])
    for _ in range(2):
        host.app.modules("script_callbacks").before_ui_callback()
    labels = [option.label for option in grid.axis_options]
    assert len(labels) == len(set(labels))
    return {option.label: option for option in grid.axis_options}


def with_axis(host: Host, monkeypatch: pytest.MonkeyPatch, change: Any, *units: Any, **settings: Any) -> Any:
    """A job whose processing object `change` has changed, as a grid changes each cell's."""
    processing = host.app.modules("processing")
    original = processing.process_images

    def process(p: Any) -> Any:
        change(p)
        return original(p)

    with monkeypatch.context() as patched:
        patched.setattr(processing, "process_images", process)
        return host.txt2img(*units, **settings)


def same(first: Any, second: Any) -> bool:
    return np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize(
    ("label", "value", "field"),
    [
        ("[ControlNet 1] Weight", 0.3, "weight"),
        ("[ControlNet 1] Guidance End", 0.4, "guidance_end"),
        ("[ControlNet 1] Control Mode", "ControlNet is more important", "control_mode"),
        ("[ControlNet 1] Preprocessor", "invert", "module"),
        ("[ControlNet 1] Model", "second", "model"),
        ("[ControlNet 1] Enabled", "False", "enabled"),
        ("[ControlNet 1] Weight Schedule", "0=1/1=0.2", "weight_schedule"),
        ("[ControlNet 1] Uncond Weight", 0.3, "uncond_weight"),
        ("[ControlNet 1] Batch Weights", "0.3", "batch_weights"),
        ("[ControlNet 1] Layer Weights", "1/0/0/0/0/1/1", "advanced_weighting"),
    ],
)
def test_an_axis_is_as_if_the_unit_had_said_so(
    host: Host, axes: dict[str, AxisOption], monkeypatch: pytest.MonkeyPatch, label: str, value: Any, field: str
) -> None:
    units = [unit(), unit(image=as_base64(picture(3)), weight=0.7)]
    if field == "advanced_weighting":
        value = "/".join(["0.5"] * _outputs(host))
    varied = with_axis(host, monkeypatch, lambda p: axes[label].apply(p, axes[label].type(value), [value]), *units)
    assert same(varied, host.txt2img(units[0], {**units[1], field: value}))
    assert not same(varied, host.txt2img(*units))


def _outputs(host: Host) -> int:
    from lib_controlnet.nets.config import UNetConfig

    return len(UNetConfig.from_weights(host.unet().state_dict()).input_channels) + 1


def test_axes_of_all_units_have_the_peers_names(axes: dict[str, AxisOption]) -> None:
    assert {"[ControlNet] Weight", "[ControlNet] Pre Threshold B", "[ControlNet 2] Model"} <= set(axes)
    assert "first" in str(axes["[ControlNet] Model"].choices())


def test_wrong_values_of_an_axis_stop_the_job(
    host: Host, axes: dict[str, AxisOption], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match="weight"):
        with_axis(host, monkeypatch, lambda p: axes["[ControlNet 0] Weight"].apply(p, 5.0, []), unit())


@pytest.mark.parametrize("allowed", [False, True])
def test_attributes_of_other_scripts_need_the_users_leave(
    host: Host, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setitem(host.app.modules("shared").opts.data, "control_net_allow_script_control", allowed)
    varied = with_axis(host, monkeypatch, lambda p: setattr(p, "control_net_weight", [0.2]), unit())
    assert same(varied, host.txt2img(unit(weight=0.2 if allowed else 1.0)))


def test_every_attribute_is_a_field() -> None:
    from lib_controlnet.core.legacy import SPELLINGS

    assert set(REMOTE.values()) <= set(SPELLINGS)
