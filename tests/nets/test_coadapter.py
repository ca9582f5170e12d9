"""The style adapter and the CoAdapters' fuser against TencentARC's formulas."""

from __future__ import annotations

import torch
from torch import Tensor

from lib_controlnet.nets.coadapter import CoAdapterFuser, FuserConfig, StyleAdapter, StyleConfig

from .coadapter_reference import ReferenceFuser, ReferenceStyle
from .ldm_oracle import randomise

CHANNELS = [32, 64, 128, 128]
WIDTH = 48


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_style_adapter_equals_the_reference() -> None:
    reference = ReferenceStyle(64, WIDTH)
    randomise(reference, seed=3)
    config = StyleConfig.from_weights(reference.state_dict())
    assert config == StyleConfig(64, 8, WIDTH, 3)
    net = StyleAdapter(config)
    net.load_state_dict(reference.state_dict())
    seen = draw(2, 17, 64)
    theirs = reference(seen)
    assert theirs.std() > 0.05
    assert (net(seen) - theirs).abs().max() / theirs.abs().max() < 1e-5


def test_the_fuser_equals_the_reference() -> None:
    reference = ReferenceFuser(CHANNELS, WIDTH)
    randomise(reference, seed=4)
    config = FuserConfig.from_weights(reference.state_dict())
    assert config == FuserConfig(WIDTH, 16, tuple(CHANNELS), 3)
    net = CoAdapterFuser(config)
    net.load_state_dict(reference.state_dict())
    features = {task: [draw(2, c, 8, 8, seed=task * 10 + c) for c in CHANNELS] for task in (0, 3)}
    style = draw(2, 8, WIDTH, seed=77)
    total, tokens = reference({**features, 5: style})
    means = [(task, [f.mean(dim=(2, 3)) for f in each]) for task, each in features.items()]
    factors, style_factors = net(means, [(5, style)])
    ours = [
        sum(f * factor[level][:, :, None, None] for f, factor in zip(at_level, factors, strict=True))
        for level, at_level in enumerate(zip(*features.values(), strict=True))
    ]
    for a, b in zip(ours, total, strict=True):
        assert b.std() > 0.05
        assert (a - b).abs().max() / b.abs().max() < 1e-5
    assert tokens is not None
    assert (style * style_factors[0] - tokens).abs().max() / tokens.abs().max() < 1e-5
