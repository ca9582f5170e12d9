"""Noise drawn ahead is the noise drawn call by call; what is placed is moved once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_controlnet.core import placed
from lib_controlnet.core.placed import NoiseAhead, Placed
from lib_controlnet.core.step import Step
from tests.device.pretend import Card, pretended

SHAPES = st.tuples(st.integers(1, 3), st.just(4), st.integers(1, 3), st.integers(1, 3))
PASSES = st.lists(st.lists(SHAPES, min_size=1, max_size=4), min_size=1, max_size=6)


def step(x: torch.Tensor, progress: float, planned: int) -> Step:
    return Step(x, x[:, 0, 0, 0], x, None, (True,), (0,), progress, planned=planned)


def drawn(calls: list[list[tuple[int, ...]]], card: Card, planned: int, dtype: torch.dtype) -> list[torch.Tensor]:
    noise, x = NoiseAhead(7), card.tensor(torch.zeros(1, 1, 1, 1, dtype=dtype))
    given_ = [
        noise.next(shape, step(x, number / len(calls), planned))
        for number, shapes in enumerate(calls)
        for shape in shapes
    ]
    assert all(one.device == card.device and one.dtype == dtype for one in given_)
    return [card.host(one) for one in given_]


@settings(deadline=None)
@given(PASSES, st.sampled_from([0, 1, 2, 6]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_numbers_are_those_drawn_call_by_call(
    calls: list[list[tuple[int, ...]]], planned: int, dtype: torch.dtype
) -> None:
    """Whatever shapes the calls of the steps have, and however many steps were planned."""
    generator = torch.Generator().manual_seed(7)
    expected = [torch.randn(shape, generator=generator).to(dtype) for shapes in calls for shape in shapes]
    with pretended() as card:
        found = drawn(calls, card, planned, dtype)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("shapes", [[(2, 4, 8, 8)], [(2, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8)]])
def test_after_the_first_step_nothing_is_copied(shapes: list[tuple[int, ...]]) -> None:
    with pretended() as card:
        drawn([shapes] * 5, card, 5, torch.float32)
        assert len(card.copies) == len(set(shapes)) + (len(shapes) > 1)
        before = card.memory.peak
        assert before <= 4 * sum(torch.Size(shape).numel() for shape in shapes) * 5 * 3


def test_no_more_lies_on_the_card_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "_BYTES_AHEAD", 3000)
    with pretended() as card:
        found = drawn([[(1, 4, 8, 8)]] * 7, card, 7, torch.float32)
        assert [event.size for event in card.copies] == [2048, 2048, 2048, 1024]
    assert len(found) == 7


def test_a_tensor_is_moved_once_a_device_and_type() -> None:
    with pretended() as card:
        tensor = Placed(torch.arange(4.0))
        like = card.tensor(torch.zeros(1))
        assert tensor.like(like) is tensor.like(like)
        assert tensor.like(like.half()) is tensor.like(like.half())
        assert tensor.like(torch.zeros(1)) is tensor.like(torch.zeros(2))
        assert len(card.copies) == 2
