"""Rows of a tiler's U-Net calls: each tile has the rows of the denoiser's call, in their order."""

from __future__ import annotations

import pytest

from lib_controlnet.core.step import RowCursor

CONDS = [1, 1]
"""Two pictures: rows cond 0, cond 1, uncond 0, uncond 1."""
COND = [(True, 0), (True, 1)]
UNCOND = [(False, 0), (False, 1)]


def taken(cursor: RowCursor, rows: int) -> list[tuple[bool, int]]:
    return list(zip(*cursor.take(rows), strict=True))


@pytest.mark.parametrize("tiles", [1, 2, 3])
@pytest.mark.parametrize("calls", [1, 4])
def test_every_tile_has_the_rows_of_the_denoisers_call(tiles: int, calls: int):
    cursor = RowCursor(CONDS, 4)
    cursor.group(4)
    for _ in range(calls):
        assert taken(cursor, 4 * tiles) == (COND + UNCOND) * tiles
    assert cursor.rows == 4


def test_conds_and_unconds_may_come_apart():
    cursor = RowCursor(CONDS, 4)
    cursor.group(2)
    assert taken(cursor, 6) == COND * 3
    assert taken(cursor, 2) == COND
    cursor.group(2)
    assert taken(cursor, 4) == UNCOND * 2


def test_a_tile_may_come_row_by_row():
    cursor = RowCursor(CONDS, 4)
    cursor.group(4)
    for _ in range(3):
        assert taken(cursor, 2) + taken(cursor, 2) == COND + UNCOND


def test_more_rows_than_the_call_has_are_told():
    cursor = RowCursor(CONDS, 4)
    for _ in range(2):
        cursor.group(4)
        assert not cursor.again
        cursor.take(2)
        cursor.take(2)
        assert not cursor.again
        cursor.take(1)
        assert cursor.again
    unannounced = RowCursor(CONDS, 4)
    unannounced.take(9)
    assert not unannounced.again


def test_unannounced_calls_go_on_as_before():
    cursor = RowCursor(CONDS, 4)
    assert taken(cursor, 2) + taken(cursor, 2) == COND + UNCOND
    assert cursor.rows == 0
