"""ControlNet-XS beside the U-Net against diffusers' model of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_controlnet.loading.xs import xs_names
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.controlnet_xs import ControlNetXS, XSConfig, divisor
from lib_controlnet.nets.unet import UNetModel

from .ldm_oracle import example, for_diffusers, randomise, with_sizes
from .sizes import SD1, SD2, SDXL
from .xs_reference import adapter, controlled


def named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = xs_names({key: key for key in weights})
    assert names is not None
    return {key: weights[origin] for key, origin in names.items()}


def together(
    unet: UNetModel, net: ControlNetXS, inputs: dict[str, Tensor], hint: Tensor, scale: float, mix: float
) -> Tensor:
    """The U-Net with its control, written out."""
    context = inputs["context"]
    emb = unet.embed(inputs["timesteps"], inputs.get("y"))
    if net.config.learns_time:
        own, share = net.embed(inputs["timesteps"]), mix**0.3
        base = unet.embed(inputs["timesteps"], None) if unet.num_classes is None else None
        plain = emb if base is None else base
        pooled = 0 if base is not None else unet.label_emb(inputs["y"])
        emb = own * share + (plain - pooled) * (1 - share) + pooled
    control = net.start(inputs["x"], net.encode_hint(hint))
    h = unet.input_blocks[0](inputs["x"], emb, context) + scale * net.for_encoder(0, control)
    skips, own_skips = [h], [control]
    for index in range(1, len(unet.input_blocks)):
        control = net.block(index, control, h, emb, context)
        h = unet.input_blocks[index](h, emb, context) + scale * net.for_encoder(index, control)
        skips.append(h)
        own_skips.append(control)
    control = net.middle(control, h, emb, context)
    h = unet.middle_block(h, emb, context) + scale * net.for_middle(control)
    for index, block in enumerate(unet.output_blocks):
        h = h + scale * net.for_decoder(index, own_skips.pop())
        h = block(torch.cat([h, skips.pop()], dim=1), emb, context)
    return unet.out(h)


@pytest.mark.parametrize(
    ("config", "ratio", "learns", "mix"),
    [(SD1, 0.5, False, 1.0), (SD2, 0.25, False, 1.0), (SDXL, 0.5, True, 1.0), (SDXL, 0.25, True, 0.6)],
)
@torch.no_grad()
def test_both_together_equal_diffusers(config: UNetConfig, ratio: float, learns: bool, mix: float) -> None:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    control = adapter(config, ratio, learns, mix)
    weights = named(dict(control.state_dict()))
    sizes = XSConfig.from_weights(weights, diffusers=True)
    net = ControlNetXS(sizes)
    net.load_state_dict(weights)
    net.eval()
    inputs = with_sizes(example(config))
    hint = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    oracle = controlled(config, unet.state_dict(), control, mix)
    theirs = oracle(**for_diffusers(inputs), controlnet_cond=hint, conditioning_scale=0.7).sample
    ours = together(unet, net, inputs, hint, 0.7, mix)
    assert (theirs - unet(**inputs)).abs().max() > 0.05
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-4


def test_scales_of_vislearns_files_are_factors() -> None:
    control = adapter(SD1)
    weights = named(dict(control.state_dict()))
    sizes = XSConfig.from_weights(weights)
    count = 2 * len(sizes.base) + 1
    plain, scaled = ControlNetXS(sizes), ControlNetXS(sizes, scales=tuple(range(count)))
    for net in (plain, scaled):
        net.load_state_dict(weights)
    h = torch.randn(1, sizes.channels[0], 4, 4)
    deep = torch.randn(1, sizes.middle.outputs, 4, 4)
    with torch.no_grad():
        assert torch.equal(scaled.for_encoder(1, h), plain.for_encoder(1, h))
        assert not scaled.for_encoder(0, h).any()
        assert torch.equal(scaled.for_middle(deep), 12 * plain.for_middle(deep))
        assert torch.equal(scaled.for_decoder(11, h), 24 * plain.for_decoder(11, h))


@pytest.mark.parametrize(
    ("number", "most", "found"), [(64, 32, 32), (1296, 32, 27), (4, 64, 4), (36, 32, 18), (7, 3, 1)]
)
def test_groups_are_the_largest_divisor(number: int, most: int, found: int) -> None:
    assert divisor(number, most) == found
