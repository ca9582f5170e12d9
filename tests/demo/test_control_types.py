"""The sources of docs/types.md; that control follows its map is tests/demo's business elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from standalone.demo.control_types import SETTINGS, scribbled, segmented, shown
from standalone.demo.shapes import PALETTE


def test_sources_are_what_their_preprocessors_expect() -> None:
    scribble = scribbled()
    assert np.unique(scribble).tolist() == [0, 255]
    assert 0.6 < (scribble == 255).mean() < 0.95, "dark lines on white"
    colours = {tuple(colour) for colour in np.unique(segmented().reshape(-1, 3), axis=0).tolist()}
    assert colours == {(0, 0, 0), PALETTE["triangle"]}


@pytest.mark.parametrize("name", [*shown(), *SETTINGS])
def test_pages_show_them(name: str) -> None:
    from pathlib import Path

    docs = Path(__file__).resolve().parents[2] / "docs"
    page = docs / ("control.md" if name in SETTINGS else "types.md")
    assert f"](types/{name}.png)" in page.read_text("utf-8")
    assert (docs / "types" / f"{name}.png").is_file()
