"""ControlLLLite's modules against kohya's formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.errors import ModelFileError
from lib_controlnet.loading.lllite import ldm_names
from lib_controlnet.nets.lllite import PREFIX, LLLite, LLLiteSizes, lllite_sizes

from .ldm_oracle import randomise
from .lllite_reference import ReferenceModule


def pair(depth: int, conv: bool) -> tuple[LLLite, ReferenceModule]:
    reference = ReferenceModule(20, 12, 16, depth, conv)
    randomise(reference, seed=depth)
    weights = {f"a.{key}": value for key, value in reference.state_dict().items()}
    net = LLLite(lllite_sizes(weights))
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False), reference


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_added_equals_the_reference(depth: int, conv: bool) -> None:
    net, reference = pair(depth, conv)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 64, 96, generator=generator) * 2 - 1
    side = 4 * 2**depth
    grid = 64 // side, 96 // side
    x = torch.randn(2, 20, *grid, generator=generator) if conv else torch.randn(2, grid[0] * grid[1], 20)
    ours = x + 0.7 * net.at("a")(x, net.at("a").conditioned(image, grid))
    theirs = reference(x, image, 0.7)
    assert (theirs - x).abs().max() > 0.05
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


@pytest.mark.parametrize(("depth", "grid"), [(1, (17, 25)), (2, (9, 13)), (3, (5, 7))])
def test_grids_of_odd_sizes_get_the_nearest(depth: int, grid: tuple[int, int]) -> None:
    """200 x 136 pixels: the U-Net rounds its halves up, the image's convolutions down."""
    net, reference = pair(depth, False)
    image = torch.rand(1, 3, 136, 200, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x = torch.randn(2, grid[0] * grid[1], 20, generator=torch.Generator().manual_seed(2))
    ours = x + net.at("a")(x, net.at("a").conditioned(image, grid))
    assert (ours - reference(x, image, 1.0, grid)).abs().max() < 1e-5


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sizes_are_read_from_the_weights(depth: int) -> None:
    _, reference = pair(depth, True)
    weights = {f"a.{key}": value for key, value in reference.state_dict().items()}
    assert lllite_sizes(weights) == {"a": LLLiteSizes(20, 12, 16, depth, True)}


@pytest.mark.parametrize("key", ["down.0.weight", "conditioning1.0.weight", "conditioning1.2.weight"])
def test_a_key_without_which_sizes_are_unknown_is_named(key: str) -> None:
    _, reference = pair(2, False)
    weights = {f"a.{name}": value for name, value in reference.state_dict().items() if name != key}
    with pytest.raises(ModelFileError, match=f"a.{key}"):
        lllite_sizes(weights)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("down_blocks_0_attentions_0_x", "input_blocks_1_1_x"),
        ("down_blocks_2_attentions_1_x", "input_blocks_8_1_x"),
        ("mid_block_attentions_0_x", "middle_block_1_x"),
        ("up_blocks_1_attentions_2_x", "output_blocks_5_1_x"),
        ("input_blocks_4_1_x", "input_blocks_4_1_x"),
    ],
)
def test_diffusers_names_are_ldms(theirs: str, ours: str) -> None:
    assert list(ldm_names({PREFIX + theirs: Tensor()}, PREFIX)) == [PREFIX + ours]
