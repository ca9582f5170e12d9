"""The list of control models: order, filter, and that neither hides a file from those who know its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.torch import save_file

from lib_controlnet.engine.library import ORDERS, Listing, ModelLibrary

FILES = ("b/Canny_v10", "a/depth", "b/canny_v2")
"""Oldest first."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, name in enumerate(FILES):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({}, path, {"which": name})
        os.utime(path, (1000 + age, 1000 + age))
    return tmp_path


def stems(folder: Path, listing: Listing) -> list[str]:
    names = ModelLibrary(lambda: [folder], listing=lambda: listing).names()
    return [name.rpartition(" [")[0] for name in names]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("name", ["canny_v2", "Canny_v10", "depth"]),
        ("date", ["canny_v2", "depth", "Canny_v10"]),
        ("path name", ["depth", "canny_v2", "Canny_v10"]),
    ],
)
def test_models_are_listed_in_the_order_of_the_setting(folder: Path, order: str, expected: list[str]) -> None:
    assert order in ORDERS
    assert stems(folder, Listing(order)) == expected


def test_filter_shortens_lists_but_hides_nothing(folder: Path) -> None:
    assert stems(folder, Listing(contains=" CANNY ")) == ["canny_v2", "Canny_v10"]
    assert stems(folder, Listing(contains="no such")) == []
    library = ModelLibrary(lambda: [folder], listing=lambda: Listing(contains="canny"))
    assert library.find("depth").path.parent.name == "a"
