"""The X/Y/Z plot's cells are measured, captioned and ranked where the axis "[ControlNet] adherence" is on."""

from __future__ import annotations

import json
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_controlnet.hosts.webui.ranking import ALL, LABEL, Ranking, adherence_of, caption, ranked
from tests.hosts.conftest import Host
from tests.hosts.test_axes import AxisOption
from tests.hosts.test_metering import lines


def draw_xyz_grid(
    p: Any, xs: Any, ys: Any, zs: Any, x_labels: Any, y_labels: Any, z_labels: Any, cell: Any, margin_size: int = 0
) -> Any:
    """As A1111's: every cell's first picture."""
    del p, x_labels, y_labels, z_labels, margin_size
    cells = [cell(x, y, z, ix, iy, iz) for iz, z in enumerate(zs) for iy, y in enumerate(ys) for ix, x in enumerate(xs)]
    result = copy(cells[0])
    result.images = [one.images[0] for one in cells]
    return result


@pytest.fixture
def grid(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    scripts = host.app.modules("scripts")
    grid = SimpleNamespace(axis_options=[], AxisOption=AxisOption, draw_xyz_grid=draw_xyz_grid)
    data = SimpleNamespace(module=grid, script_class=type("Script", (), {"__module__": "xyz_grid.py"}))
    monkeypatch.setattr(scripts, "scripts_data", [*scripts.scripts_data, data])
    for _ in range(2):
        host.app.modules("script_callbacks").before_ui_callback()
    return grid


def plot(host: Host, grid: Any, weights: list[float], ranks: list[str]) -> tuple[Any, list[Any]]:
    """A grid of weights (x) with the axis on y, and what each of its jobs gave."""
    options = {option.label: option for option in grid.axis_options}
    made: list[Any] = []
    processing = host.app.modules("processing")
    original = processing.process_images

    def cell(x: float, y: str, _z: Any, _ix: int, _iy: int, _iz: int) -> Any:
        def process(p: Any) -> Any:
            options["[ControlNet] Weight"].apply(p, x, weights)
            if y:
                options[LABEL].apply(p, y, ranks)
            return original(p)

        processing.process_images = process
        try:
            made.append(host.txt2img(lines()))
        finally:
            processing.process_images = original
        return made[-1]

    labels = [f"Weight: {weight:g}" for weight in weights]
    return grid.draw_xyz_grid(None, weights, ranks, [0], labels, ranks, [""], cell=cell), made


def test_cells_are_measured_captioned_and_ranked(host: Host, grid: Any) -> None:
    weights = [0.0, 0.5, 1.0]
    result, made = plot(host, grid, weights, [ALL])
    assert len(made) == 3  # none is made twice
    values = [json.loads(one.js())["controlnet"][0]["adherence"] for one in made]
    best = int(np.argmax(values))
    assert f"adherence {max(values):.3f}" in result.comments
    assert f"Weight: {weights[best]:g}" in result.comments
    for place, (shown, one) in enumerate(zip(result.images, made, strict=True)):
        pixels, plain = (np.asarray(image.convert("RGB")).astype(int) for image in (shown, one.images[0]))
        assert np.array_equal(pixels[:50], plain[:50])
        strip = (20, 110, 60) if values[place] == max(values) else (30, 30, 30)
        assert tuple(pixels[-1, 0]) == strip


def test_without_the_axis_a_grid_is_the_hosts_own(host: Host, grid: Any) -> None:
    result, made = plot(host, grid, [0.5], [""])
    assert result.images[0] is made[0].images[0]
    assert "follows best" not in result.comments


def test_one_unit_is_asked_for() -> None:
    units = [{"unit": 0, "adherence": 0.2}, {"unit": 1, "adherence": 0.6}, {"unit": 2, "adherence": None}]
    job = SimpleNamespace(images=[1], js=lambda: json.dumps({"controlnet": units}))
    assert adherence_of(job, ALL) == pytest.approx(0.4)
    assert adherence_of(job, "unit 1") == 0.6
    assert adherence_of(job, "unit 2") is None
    assert adherence_of(SimpleNamespace(images=[], js=lambda: "{}"), ALL) is None


def test_equals_share_a_rank() -> None:
    assert ranked({(0, 0, 0): 0.5, (1, 0, 0): 0.9, (2, 0, 0): 0.5}) == {(0, 0, 0): 2, (1, 0, 0): 1, (2, 0, 0): 2}


def test_a_grid_is_wrapped_once() -> None:
    grid = SimpleNamespace(draw_xyz_grid=draw_xyz_grid)
    for _ in range(2):
        Ranking().wrap(grid)
    assert grid.draw_xyz_grid.controlnet_ranks is draw_xyz_grid


@pytest.mark.parametrize("size", [(64, 64), (512, 768), (1024, 32)])
def test_captions_fit(size: tuple[int, int]) -> None:
    shown = caption(Image.new("RGB", size, "white"), "0.831  no. 12 of 144", False)
    assert shown.size == size
    white = (np.asarray(shown)[-max(12, round(size[1] * 0.08)) :] > 120).any(axis=2).any(axis=0)
    assert white.any()
    assert not white[0]
    assert not white[-1]
