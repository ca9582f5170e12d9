"""Telling rows apart, against A1111's own loop (`CFGDenoiser.forward`) acted out call by call."""

from __future__ import annotations

import itertools

import pytest
import torch

from lib_controlnet.core.step import RowCursor, Step


def host_rows(conds: list[int], groups: int) -> list[tuple[bool, int]]:
    """(is cond, image) of every row of one denoiser step, as the host builds x_in."""
    cond = [(True, image) for image, repeats in enumerate(conds) for _ in range(repeats)]
    return cond + [(False, image) for _ in range(groups) for image in range(len(conds))]


def host_calls(rows: int, conds: int, batch: int, pattern: str) -> list[int]:
    """Sizes of the U-Net calls of one denoiser step (hosts.md, table of CFGDenoiser)."""
    if pattern == "one call":
        return [rows]
    if pattern == "sliced":
        return [min(batch, rows - at) for at in range(0, rows, batch)]
    if pattern == "unequal lengths":
        chunk = 2 * batch
        return [min(chunk, conds - at) for at in range(0, conds, chunk)] + [rows - conds]
    return [conds]  # uncond skipped


@pytest.mark.parametrize("pattern", ["one call", "sliced", "unequal lengths", "uncond skipped"])
def test_rows_are_told_apart(pattern):
    for batch, groups, repeats in itertools.product((1, 2, 4), (1, 2), ((1,), (1, 2), (3, 1))):
        conds = [repeats[i % len(repeats)] for i in range(batch)]
        expected = host_rows(conds, groups)
        cursor, at = RowCursor(conds, len(expected)), 0
        for size in host_calls(len(expected), sum(conds), batch, pattern):
            is_cond, images = cursor.take(size)
            assert list(zip(is_cond, images, strict=True)) == expected[at : at + size]
            at += size


def test_rows_past_the_plan_count_as_cond():
    cursor = RowCursor([1], 2)
    cursor.take(2)
    assert cursor.take(1)[0] == (True,)
    assert RowCursor((), 0).take(2) == ((True, True), (0, 0))


def test_selected_rows_are_views_where_they_are_neighbours():
    step = Step(
        x=torch.arange(4.0).view(4, 1, 1, 1),
        timesteps=torch.arange(4),
        context=torch.arange(4.0).view(4, 1, 1),
        y=torch.arange(4.0).view(4, 1),
        is_cond=(True, False, True, False),
        images=(0, 0, 1, 1),
        progress=0.5,
    )
    middle = step.select([1, 2])
    assert middle.x.data_ptr() == step.x[1:].data_ptr()
    assert middle.is_cond == (False, True)
    apart = step.select([0, 3])
    assert apart.x.flatten().tolist() == [0.0, 3.0]
    assert apart.y.flatten().tolist() == [0.0, 3.0]
    assert apart.images == (0, 1)
    assert step.select([0, 1, 2, 3]) is step
