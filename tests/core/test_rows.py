"""Rows picked by slices or kept tensors are those that a list picks, laid out as a list's."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_controlnet.core.rows import RowTensors

ROWS = st.lists(st.integers(0, 7), min_size=1, max_size=8)
LAYOUTS = st.sampled_from([torch.contiguous_format, torch.channels_last])


def batch(layout: torch.memory_format) -> torch.Tensor:
    return torch.arange(8 * 3 * 2 * 2.0).reshape(8, 3, 2, 2).contiguous(memory_format=layout)


@given(ROWS, LAYOUTS)
def test_rows_are_those_of_a_list(rows: list[int], layout: torch.memory_format) -> None:
    tensor = batch(layout)
    picked = RowTensors().of(tensor, rows)
    assert torch.equal(picked, tensor[rows])
    assert picked.is_contiguous(memory_format=layout)


@given(st.sets(st.integers(0, 7), min_size=1), LAYOUTS)
def test_rows_are_written_as_by_a_list(chosen: set[int], layout: torch.memory_format) -> None:
    rows, tensor = list(chosen), batch(layout)
    expected = tensor.clone()
    expected[rows] = -tensor[rows]
    RowTensors().put(tensor, rows, -tensor[rows])
    assert torch.equal(tensor, expected)


@given(ROWS)
def test_tensors_are_made_once(rows: list[int]) -> None:
    kept, device = RowTensors(), torch.device("cpu")
    assert kept.numbers(rows, device) is kept.numbers(tuple(rows), device)
    assert kept.numbers(rows, device).tolist() == rows
    flags = [row > 3 for row in rows]
    assert kept.flags(flags, device) is kept.flags(tuple(flags), device)
    assert kept.flags(flags, device).tolist() == flags
