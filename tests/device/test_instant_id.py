"""InstantID's two units in whole passes: no step waits for the card, rows and pictures keep apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import ip_files

from .passes import CONFIGS, ROWS, Studio, Types, unit
from .test_steps import check

PAIR: list[dict[str, Any]] = [
    {"preprocessor": "instant_id_face_embedding", "model": "face"},
    {"preprocessor": "instant_id_face_keypoints", "model": "first"},
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = Path(tmp_path_factory.mktemp("models"))
    ip_files.write(folder / "face.safetensors", "unnorm", replace(CONFIGS["SDXL"], in_channels=4))
    return Studio(folder, CONFIGS["SDXL"])


def units(order: int = 1) -> list[Any]:
    return [unit(index, **fields) for index, fields in enumerate(PAIR[::order])]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("rows", ["guidance", "prompts of unequal length", "batch in two calls"])
def test_no_step_waits(studio: Studio, rows: str, order: int) -> None:
    check(studio, units(order), rows=ROWS[rows])


def test_in_half_precision(studio: Studio) -> None:
    check(studio, units(), types=Types(torch.float16, torch.float16))


def test_rows_alone_are_rows_together(studio: Studio) -> None:
    one, other = (studio.made(units(), rows=replace(ROWS["AND of unequal length"], calls=calls), steps=1)
                  for calls in ((2, 1, 1), (4,)))  # fmt: skip
    torch.testing.assert_close(torch.cat(one.outputs), torch.cat(other.outputs), atol=2e-4, rtol=1e-3)


def test_each_picture_has_its_own_face(studio: Studio) -> None:
    """Units without pictures take the host's, one for each place of the batch."""
    both = [unit(index, image=None, mask=None, **fields) for index, fields in enumerate(PAIR)]
    made = studio.made(both, rows=ROWS["batch"], steps=1)
    plain = studio.made([], rows=ROWS["batch"], steps=1)
    assert all(float(row.abs().max()) > 1e-3 for row in made.outputs[0] - plain.outputs[0])
    alone = studio.made(both, rows=ROWS["batch in two calls"], steps=1)
    torch.testing.assert_close(torch.cat(alone.outputs), made.outputs[0], atol=2e-4, rtol=1e-3)
