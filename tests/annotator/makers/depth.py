"""Networks of depth: small ones, whose sizes the preprocessors read from the file.

The tensors have the names of the publications, whose classes need timm; so they are written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from annotator.sd_controlnet.libraries import controlnet_aux

_WIDTH = 64
_LAYERS = 12


class Tensors(dict[str, Tensor]):
    """Random tensors by name, lively enough that every part of a network shows in its map."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._random = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int, spread: float = 1.0, mean: float = 0.0) -> None:
        self[name] = torch.randn(shape, generator=self._random) * spread + mean

    def layer(self, name: str, outs: int, ins: int, *kernel: int, bias: bool = True) -> None:
        fan = ins * (kernel[0] * kernel[1] if kernel else 1)
        self.draw(f"{name}.weight", outs, ins, *kernel, spread=fan**-0.5)
        if bias:
            self.draw(f"{name}.bias", outs, spread=0.1)

    def norm(self, name: str, size: int) -> None:
        self.draw(f"{name}.weight", size, spread=0.1, mean=1.0)
        self.draw(f"{name}.bias", size, spread=0.1)

    def transformer(self, prefix: str, *, swiglu: bool = False) -> None:
        for number in range(_LAYERS):
            name = f"{prefix}.{number}"
            self.norm(f"{name}.norm1", _WIDTH)
            self.norm(f"{name}.norm2", _WIDTH)
            self.layer(f"{name}.attn.qkv", 3 * _WIDTH, _WIDTH)
            self.layer(f"{name}.attn.proj", _WIDTH, _WIDTH)
            if swiglu:
                hidden = (int(_WIDTH * 4 * 2 / 3) + 7) // 8 * 8
                self.layer(f"{name}.mlp.w12", 2 * hidden, _WIDTH)
                self.layer(f"{name}.mlp.w3", _WIDTH, hidden)
            else:
                self.layer(f"{name}.mlp.fc1", 4 * _WIDTH, _WIDTH)
                self.layer(f"{name}.mlp.fc2", _WIDTH, 4 * _WIDTH)

    def fusion(self, prefix: str, ins: tuple[int, ...], size: int) -> None:
        for number, channels in enumerate(ins, start=1):
            self.layer(f"{prefix}layer{number}_rn", size, channels, 3, 3, bias=False)
            for unit in (1, 2):
                for step in (1, 2):
                    self.layer(f"{prefix}refinenet{number}.resConfUnit{unit}.conv{step}", size, size, 3, 3)
            self.layer(f"{prefix}refinenet{number}.out_conv", size, size, 1, 1)


def midas() -> Tensors:
    tensors, model = Tensors(), "pretrained.model"
    tensors.draw(f"{model}.cls_token", 1, 1, _WIDTH)
    tensors.draw(f"{model}.pos_embed", 1, 1 + 5 * 5, _WIDTH)
    resnet = f"{model}.patch_embed.backbone"
    tensors.layer(f"{resnet}.stem.conv", 32, 3, 7, 7, bias=False)
    tensors.norm(f"{resnet}.stem.norm", 32)
    ins = 32
    for stage, blocks in enumerate((2, 1, 1)):
        for block in range(blocks):
            name = f"{resnet}.stages.{stage}.blocks.{block}"
            if not block:
                tensors.layer(f"{name}.downsample.conv", 128, ins, 1, 1, bias=False)
                tensors.norm(f"{name}.downsample.norm", 128)
            for number, (outs, before, side) in enumerate(((32, ins, 1), (32, 32, 3), (128, 32, 1)), start=1):
                tensors.layer(f"{name}.conv{number}", outs, before, side, side, bias=False)
                tensors.norm(f"{name}.norm{number}", outs)
            ins = 128
    tensors.layer(f"{model}.patch_embed.proj", _WIDTH, 128, 1, 1)
    tensors.transformer(f"{model}.blocks")
    tensors.norm(f"{model}.norm", _WIDTH)
    tensors.layer(f"{model}.head", 10, _WIDTH)
    for number in (3, 4):
        tensors.layer(f"pretrained.act_postprocess{number}.0.project.0", _WIDTH, 2 * _WIDTH)
        tensors.layer(f"pretrained.act_postprocess{number}.3", 48, _WIDTH, 1, 1)
    tensors.layer("pretrained.act_postprocess4.4", 48, 48, 3, 3)
    tensors.fusion("scratch.", (128, 128, 48, 48), 32)
    tensors.layer("scratch.output_conv.0", 16, 32, 3, 3)
    tensors.layer("scratch.output_conv.2", 32, 16, 3, 3)
    tensors.layer("scratch.output_conv.4", 1, 32, 1, 1)
    tensors["scratch.output_conv.4.bias"] += 2.0  # else the last ReLU leaves little
    return tensors


def depth_anything(*, swiglu: bool = False) -> Tensors:
    tensors, model = Tensors(), "pretrained"
    tensors.draw(f"{model}.cls_token", 1, 1, _WIDTH)
    tensors.draw(f"{model}.mask_token", 1, _WIDTH)
    tensors.draw(f"{model}.pos_embed", 1, 1 + 37 * 37, _WIDTH)
    tensors.layer(f"{model}.patch_embed.proj", _WIDTH, 3, 14, 14)
    tensors.transformer(f"{model}.blocks", swiglu=swiglu)
    for number in range(_LAYERS):
        for part in (1, 2):
            tensors.draw(f"{model}.blocks.{number}.ls{part}.gamma", _WIDTH, spread=0.2, mean=0.5)
    tensors.norm(f"{model}.norm", _WIDTH)
    neck = (8, 16, 24, 24)
    for number, channels in enumerate(neck):
        tensors.layer(f"depth_head.projects.{number}", channels, _WIDTH, 1, 1)
    tensors.layer("depth_head.resize_layers.0", 8, 8, 4, 4)
    tensors.layer("depth_head.resize_layers.1", 16, 16, 2, 2)
    tensors.layer("depth_head.resize_layers.3", 24, 24, 3, 3)
    tensors.fusion("depth_head.scratch.", neck, 16)
    tensors.layer("depth_head.scratch.output_conv1", 8, 16, 3, 3)
    tensors.layer("depth_head.scratch.output_conv2.0", 32, 8, 3, 3)
    tensors.layer("depth_head.scratch.output_conv2.2", 1, 32, 1, 1)
    tensors["depth_head.scratch.output_conv2.2.bias"] += 2.0
    return tensors


def zoe() -> Tensors:
    tensors, core = Tensors(), "core.core."
    model = f"{core}pretrained.model"
    tensors.draw(f"{model}.cls_token", 1, 1, _WIDTH)
    tensors.layer(f"{model}.patch_embed.proj", _WIDTH, 3, 16, 16)
    tensors.transformer(f"{model}.blocks")
    for number in range(_LAYERS):
        name = f"{model}.blocks.{number}"
        bias = tensors.pop(f"{name}.attn.qkv.bias")
        tensors[f"{name}.attn.q_bias"], _, tensors[f"{name}.attn.v_bias"] = bias.chunk(3)
        tensors.draw(f"{name}.attn.relative_position_bias_table", 7 * 7 + 3, 1)
        tensors[f"{name}.attn.relative_position_index"] = torch.zeros(17, 17, dtype=torch.long)
        for part in (1, 2):
            tensors.draw(f"{name}.gamma_{part}", _WIDTH, spread=0.2, mean=0.5)
    tensors.norm(f"{model}.fc_norm", _WIDTH)
    tensors.layer(f"{model}.head", 10, _WIDTH)
    neck = (16, 24, 32, 32)
    for number, channels in enumerate(neck, start=1):
        tensors.layer(f"{core}pretrained.act_postprocess{number}.0.project.0", _WIDTH, 2 * _WIDTH)
        tensors.layer(f"{core}pretrained.act_postprocess{number}.3", channels, _WIDTH, 1, 1)
    for number, side in ((1, 4), (2, 2), (4, 3)):
        tensors.layer(f"{core}pretrained.act_postprocess{number}.4", *2 * (neck[number - 1],), side, side)
    tensors.fusion(f"{core}scratch.", neck, 32)
    tensors.layer(f"{core}scratch.output_conv.0", 16, 32, 3, 3)
    tensors.layer(f"{core}scratch.output_conv.2", 32, 16, 3, 3)
    tensors.layer(f"{core}scratch.output_conv.4", 1, 32, 1, 1)
    tensors.layer("conv2", 32, 32, 1, 1)
    heads = {"seed_bin_regressor": (32, 256, 64), "seed_projector": (32, 128, 24)}
    for number, attractors in enumerate((16, 8, 4, 1)):
        heads[f"projectors.{number}"] = (32, 128, 24)
        heads[f"attractors.{number}"] = (24, 24, attractors)
    for name, (ins, hidden, outs) in heads.items():
        tensors.layer(f"{name}._net.0", hidden, ins, 1, 1)
        tensors.layer(f"{name}._net.2", outs, hidden, 1, 1)
    tensors["conditional_log_binomial.log_binomial_transform.k_idx"] = torch.arange(64).view(1, -1, 1, 1)
    tensors["conditional_log_binomial.log_binomial_transform.K_minus_1"] = torch.tensor([63.0]).view(1, 1, 1, 1)
    tensors.layer("conditional_log_binomial.mlp.0", 28, 33 + 24, 1, 1)
    tensors.layer("conditional_log_binomial.mlp.2", 4, 28, 1, 1)
    return tensors


def normal_bae() -> nn.Module:
    """controlnet_aux's network as its own detector makes it, at its one size (291 MB)."""
    settings = SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
    torch.manual_seed(0)
    with redirect_stdout(StringIO()):
        return controlnet_aux("normalbae.nets.NNET").NNET(settings).eval()


def _scannet(file: Path) -> None:
    weights = {f"module.{name}": tensor for name, tensor in normal_bae().state_dict().items()}
    torch.save({"model": weights}, file)


def _pickled(make: Callable[[], Tensors]) -> Callable[[Path], None]:
    return lambda file: torch.save(dict(make()), file)


_second = [f"depth_anything_v2_{size}.pth" for size in ("vits", "vitb", "vitl", "metric_hypersim_vitl")]
MAKERS: dict[str, Callable[[Path], None]] = {
    "dpt_hybrid-midas-501f0c75.pt": _pickled(midas),
    **{f"depth_anything_vit{size}14.pth": _pickled(depth_anything) for size in "sbl"},
    **dict.fromkeys([*_second, "depth_anything_v2_metric_vkitti_vitl.pth"], _pickled(depth_anything)),
    "depth_anything_v2_vitg.pth": _pickled(lambda: depth_anything(swiglu=True)),
    "ZoeD_M12_N.pt": lambda file: torch.save({"model": dict(zoe())}, file),
    "scannet.pt": _scannet,
    "depth_anything_v2_vitl.safetensors": lambda file: save_file(dict(depth_anything()), file),
}
