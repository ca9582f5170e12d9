"""Tiles with pieces of a hint, as Tiled Diffusion hands them over, against diffusers' ControlNet on each tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lib_controlnet.core.errors import HostError, UnitError
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.step import Pass

from .test_session import FakeGeneration, began, expected, folder, picture, step, unit  # noqa: F401 (folder: a fixture)

UNET = nn.Module()
BOXES = ((0, 0), (32, 0), (0, 32), (32, 32))
"""Left upper corners in pixels of tiles of 32 x 32."""


def crops(whole: torch.Tensor) -> list[torch.Tensor]:
    return [whole[:, :, y : y + 32, x : x + 32] for x, y in BOXES]


def tile_step(tiles: int, rows: int = 2):
    """A U-Net call with `tiles` tiles of a denoiser call of `rows` rows: conds, then unconds."""
    one = step(tiles * rows, is_cond=((True,) * (rows // 2) + (False,) * (rows - rows // 2)) * tiles, images=(0,) * 99)
    return replace(one, x=one.x[:, :, :4, :4].clone(), images=(0,) * tiles * rows, group=rows)


def handed_over(pieces: list[torch.Tensor], rows: int, order: str) -> torch.Tensor:
    """As `switch_controlnet_tensors` makes it: k-diffusion's side by side, others in turns, once or twice as often."""
    tensor = torch.cat(pieces)
    if order == "side by side":
        return torch.cat([torch.cat([piece] * rows) for piece in pieces])
    return {"once": tensor, "in turns": tensor.repeat(rows, 1, 1, 1), "twice": tensor.repeat(2 * rows, 1, 1, 1)}[order]


def each_tile(one, pieces, rows, weights=(1.0,)):
    """diffusers, tile by tile."""
    outputs = []
    for place, piece in enumerate(pieces):
        part = one.select(range(place * rows, (place + 1) * rows))
        pixels = (piece[0, :3] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        outputs.append(expected(part, (1,), [unit(image=pixels)], weights))
    return [torch.cat(tensors) for tensors in zip(*outputs, strict=True)]


@pytest.mark.parametrize("order", ["side by side", "in turns", "twice", "once"])
@pytest.mark.parametrize("tiles", [1, 2, 4])
@pytest.mark.parametrize("rows", [2, 3])
def test_each_tile_is_controlled_by_its_piece(folder, order, tiles, rows):  # noqa: F811
    session = began(folder, unit())
    pieces = crops(session.hint_for(0, Pass.base))[:tiles]
    one = tile_step(tiles, rows)
    session.tile(0, handed_over(pieces, rows, order))
    _, control = session.begin_call(one)
    wanted = each_tile(one, pieces, rows)
    assert max(float((a - b).abs().max()) for a, b in zip(control.outputs(), wanted, strict=True)) <= 2e-6
    swapped = each_tile(one, pieces[::-1], rows)
    if tiles > 1:
        assert max(float((a - b).abs().max()) for a, b in zip(control.outputs(), swapped, strict=True)) > 1e-4


def test_only_cond_rows_of_every_tile_are_controlled(folder):  # noqa: F811
    session = began(folder, unit(control_mode=ControlMode.control))
    pieces = crops(session.hint_for(0, Pass.base))[:2]
    one = tile_step(2)
    session.tile(0, handed_over(pieces, 2, "side by side"))
    _, control = session.begin_call(one)
    for tensor in control.outputs():
        assert [bool(row.any()) for row in tensor] == [True, False, True, False]


def test_a_region_is_cut_with_its_hint(folder):  # noqa: F811
    """The right half alone: tiles on the left are left alone, those on the right wholly controlled."""
    region = np.zeros((64, 64), np.uint8)
    region[:, 32:] = 255
    session = began(folder, unit(region_mask=region))
    whole = session.hint_for(0, Pass.base)
    assert whole.shape == (1, 4, 64, 64)
    pieces, one = crops(whole)[:2], tile_step(2)
    session.tile(0, handed_over(pieces, 2, "side by side"))
    _, control = session.begin_call(one)
    wanted = each_tile(one, pieces, 2)
    for got, right in zip(control.outputs(), wanted, strict=True):
        assert not got[:2].any()
        assert float((got[2:] - right[2:]).abs().max()) <= 1e-4


def test_the_whole_hint_ends_it(folder):  # noqa: F811
    session = began(folder, unit())
    whole = session.hint_for(0, Pass.base)
    _, before = session.begin_call(step())
    session.tile(0, torch.cat(crops(whole)[:1]))
    with pytest.raises(HostError, match=r"a latent of 8x8 with a hint for 4x4"):
        session.begin_call(step())
    session.tile(0, whole)
    _, after = session.begin_call(step())
    assert all(torch.equal(a, b) for a, b in zip(before.outputs(), after.outputs(), strict=True))


def test_pieces_that_do_not_fit_the_tiles_are_an_error(folder):  # noqa: F811
    session = began(folder, unit(1))
    session.tile(0, torch.cat(crops(session.hint_for(0, Pass.base))[:3]))
    with pytest.raises(HostError, match=r"unit 1, image: .*3 pieces for 4 rows"):
        session.begin_call(tile_step(2))


def test_several_sources_cannot_be_cut(folder):  # noqa: F811
    session = began(folder, unit(4), generation=FakeGeneration(sources=(picture(1), picture(2))))
    with pytest.raises(UnitError, match=r"unit 4, image: .*2 maps"):
        session.hint_for(0, Pass.base)


def test_a_hint_can_be_read_before_its_pass_begins(folder):  # noqa: F811
    generation = FakeGeneration(hires=True, final_size=(128, 128))
    session = began(folder, unit(), generation=generation)
    assert session.hint_for(0, Pass.hires).shape == (1, 3, 128, 128)
    assert session.hint_for(0, Pass.base).shape == (1, 3, 64, 64)
