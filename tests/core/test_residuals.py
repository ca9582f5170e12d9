"""Residuals as data: scaling, masking, pooling, merging, rows."""

from __future__ import annotations

import pytest
import torch

from lib_controlnet.core.residuals import RegionMask, Residuals


def control(seed: int = 0, batch: int = 2) -> Residuals:
    generator = torch.Generator().manual_seed(seed)
    make = lambda c, s: torch.randn(batch, c, s, s, generator=generator)  # noqa: E731
    return Residuals(encoder=(None, make(3, 4)), skip=(make(2, 4), make(2, 2)), middle=make(5, 2))


def test_each_output_gets_its_own_weight():
    before = control()
    after = before.scaled((0.5, 1.0, 0.0, 2.0))
    assert torch.equal(after.encoder[1], before.encoder[1] * 0.5)
    assert after.skip[0] is before.skip[0], "a weight of 1 costs nothing"
    assert not after.skip[1].any()
    assert torch.equal(after.middle, before.middle * 2)


def test_a_wrong_number_of_weights_is_refused():
    with pytest.raises(ValueError, match="3 layer weights for 4 outputs"):
        control().scaled((1.0, 1.0, 1.0))


def test_merging_is_a_sum_whatever_the_order_and_length():
    a, b = control(1), Residuals(skip=(*control(2).skip, torch.ones(2, 1, 1, 1)))
    ab, ba = a.merged(b), b.merged(a)
    assert torch.equal(ab.skip[0], a.skip[0] + b.skip[0])
    assert torch.equal(ab.skip[2], torch.ones(2, 1, 1, 1))
    assert ab.middle is a.middle
    assert all(torch.equal(x, y) for x, y in zip(ab.outputs(), ba.outputs(), strict=True))


@pytest.mark.parametrize("rows", [[0], [1], [0, 2], [2, 3], [1, 3]])
def test_rows_not_computed_get_nothing(rows):
    part = Residuals(middle=torch.rand(len(rows), 3, 2, 2) + 1)
    whole = part.spread(rows, 4).middle
    for row in range(4):
        expected = part.middle[rows.index(row)] if row in rows else torch.zeros(3, 2, 2)
        assert torch.equal(whole[row], expected)


def test_all_rows_computed_are_passed_on_as_they_are():
    part = control()
    assert part.spread([0, 1], 2) is part


def test_pooling_is_the_mean_over_positions():
    assert torch.allclose(control().pooled().middle[:, :, 0, 0], control().middle.mean((2, 3)))


def test_the_region_mask_is_stretched_to_each_size():
    mask = torch.zeros(1, 1, 8, 8)
    mask[:, :, :, 4:] = 1.0
    part = control().masked(RegionMask(mask))
    assert not part.skip[0][..., :2].any()
    assert torch.equal(part.skip[0][..., 2:], control().skip[0][..., 2:])
    assert not part.middle[..., 0].any()
