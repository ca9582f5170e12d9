"""Sizes of the networks that tests build: real layer counts, narrow widths."""

from __future__ import annotations

from lib_controlnet.nets.config import UNetConfig

SD1 = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    transformer_depth=(1, 1, 1, 0),
    middle_depth=1,
    context_dim=48,
    num_heads=8,
    head_dim=None,
    use_linear=False,
    adm_channels=None,
)
SD2 = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=64,
    channel_mult=(1, 1, 2, 2),
    num_res_blocks=2,
    transformer_depth=(1, 1, 1, 0),
    middle_depth=1,
    context_dim=1024,
    num_heads=None,
    head_dim=64,
    use_linear=True,
    adm_channels=None,
)
SDXL = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=32,
    channel_mult=(1, 2, 4),
    num_res_blocks=2,
    transformer_depth=(0, 2, 10),
    middle_depth=10,
    context_dim=80,
    num_heads=None,
    head_dim=64,
    use_linear=True,
    adm_channels=112,
)
DEMO = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=96,
    channel_mult=(1, 1, 1),
    num_res_blocks=1,
    transformer_depth=(0, 1, 1),
    middle_depth=1,
    context_dim=64,
    num_heads=8,
    head_dim=None,
    use_linear=False,
    adm_channels=None,
)
CONFIGS = {"SD1": SD1, "SD2": SD2, "SDXL": SDXL, "demo": DEMO}
