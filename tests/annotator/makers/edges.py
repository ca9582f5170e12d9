"""Networks of edges and lines."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from annotator.sd_controlnet.libraries import controlnet_aux


def contrasted(network: nn.Module, gain: float = 1.0) -> nn.Module:
    """Random weights that keep the contrast of a picture: as the libraries draw them, deep networks answer in grey."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
            parameter.data.mul_(gain)
    return network


def hed(file: Path) -> None:
    torch.manual_seed(0)
    torch.save(controlnet_aux("hed").ControlNetHED_Apache2().state_dict(), file)


def pidinet(file: Path) -> None:
    """As the published file: in "state_dict", with the names of parallel training."""
    torch.manual_seed(1)
    network = contrasted(controlnet_aux("pidi").pidinet())
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, file)


def mlsd(file: Path) -> None:
    torch.manual_seed(2)
    network = contrasted(controlnet_aux("mlsd").MobileV2_MLSD_Large())
    torch.save(network.state_dict(), file)


def lineart(file: Path, seed: int = 3) -> None:
    torch.manual_seed(seed)
    torch.save(controlnet_aux("lineart").Generator(3, 1, 3).state_dict(), file)


def lineart_anime(file: Path) -> None:
    torch.manual_seed(4)
    norm = functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    network = controlnet_aux("lineart_anime").UnetGenerator(3, 1, 8, 64, norm_layer=norm)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, file)


def teed(file: Path, seed: int = 5) -> None:
    torch.manual_seed(seed)
    network = contrasted(controlnet_aux("teed").TED(), 0.6)
    torch.save(network.state_dict(), file)


MANGA_STAGES = (
    # channels in, out, blocks, stride of the last block, whether the first block doubles the size
    (1, 24, 2, 1, False),
    (24, 48, 3, 2, False),
    (48, 96, 5, 2, False),
    (96, 192, 7, 2, False),
    (192, 384, 12, 2, False),
    (384, 192, 7, 1, True),
    (192, 96, 5, 1, True),
    (96, 48, 3, 1, True),
    (48, 24, 2, 1, True),
    (24, 16, 2, 1, False),
)


def manga_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes in erika.pth, from the table above; no library has a class of this network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, channels: int, out: int, size: int) -> None:
        shapes.update({f"{name}.weight": (out, channels, size, size), f"{name}.bias": (out,)})

    def normed(name: str, channels: int, out: int, size: int) -> None:
        shapes.update({f"{name}.0.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.0.num_batches_tracked"] = ()
        convolution(f"{name}.2", channels, out, size)

    for stage, (channels, out, blocks, stride, _) in enumerate(MANGA_STAGES):
        for number in range(blocks):
            block, inner = f"block{stage}.model.{number}", channels if number == 0 else out
            normed(f"{block}.conv1.model", inner, out, 3)
            normed(f"{block}.residual.model", out, out, 3)
            if inner != out or (stride == 2 and number == blocks - 1):
                convolution(f"{block}.shortcut.model.0", inner, out, 1)
    normed("conv15.model", 16, 1, 1)
    return shapes


def manga_line(file: Path) -> None:
    generator = torch.Generator().manual_seed(6)
    torch.save({name: _drawn(name, shape, generator) for name, shape in manga_shapes().items()}, file)


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if not shape:
        return torch.tensor(1)
    drawn = torch.randn(shape, generator=generator)
    if len(shape) == 4:
        return drawn * (2.0 / drawn[0].numel()) ** 0.5
    if name == "conv15.model.2.bias":
        return drawn.abs() + 120.0
    return drawn.abs() + 0.5 if name.endswith((".0.weight", "running_var")) else drawn * 0.1


MAKERS = {
    "ControlNetHED.pth": hed,
    "table5_pidinet.pth": pidinet,
    "mlsd_large_512_fp32.pth": mlsd,
    "sk_model.pth": lineart,
    "sk_model2.pth": functools.partial(lineart, seed=7),
    "netG.pth": lineart_anime,
    "erika.pth": manga_line,
    "7_model.pth": teed,
    "MTEED.pth": functools.partial(teed, seed=8),
}
