"""Files of other kinds of control models than the ControlNet, at SD1.5's size, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.loading.low_rank import MARK
from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet_union import ControlNetUnion, UnionConfig
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.t2i_adapter import AdapterConfig, BlockSizes, T2IAdapter

from . import networks

RANK = 128
_STAGES = (320, 640, 1280, 1280)


def t2i_adapter() -> Mapping[str, Tensor]:
    """A full T2I-Adapter: two blocks a stage, of which the first may widen."""
    entered = (_STAGES[0], *_STAGES[:-1])
    stages = zip(entered, _STAGES, strict=True)
    blocks = [(BlockSizes(come, go, 1, int(come != go)), BlockSizes(go, go, 1)) for come, go in stages]
    return networks.drawn(T2IAdapter(AdapterConfig(192, 8, tuple(blocks), _STAGES, False)), seed=6).state_dict()


def controlnet_union() -> Mapping[str, Tensor]:
    """A Union of six kinds (published ones are for SDXL)."""
    sizes = ControlNetConfig(networks.SD15)
    return networks.drawn(ControlNetUnion(sizes, UnionConfig(6, 1, 256), Operations(initialise=False)), 7).state_dict()


def control_lora() -> Mapping[str, Tensor]:
    """What differs from the base of every matrix in two factors of rank RANK, all else whole."""
    own, base = networks.controlnet().state_dict(), networks.outline_of_unet()
    made: dict[str, Tensor] = {MARK: torch.empty(0)}
    generator = torch.Generator().manual_seed(8)
    for key, weight in own.items():
        outs, ins = weight.shape[0], weight[0].numel()
        if key not in base or weight.dim() < 2 or RANK * (outs + ins) >= outs * ins:
            made[key] = weight
            continue
        module = key.removesuffix(".weight")
        made[f"{module}.up"] = torch.randn(outs, RANK, generator=generator) * 1e-3
        made[f"{module}.down"] = torch.randn(RANK, *weight.shape[1:], generator=generator) * 1e-3
    return made


FILES: Mapping[str, Callable[[], Mapping[str, Tensor]]] = {
    "bench_t2i_adapter": t2i_adapter,
    "bench_controlnet_union": controlnet_union,
    "bench_control_lora": control_lora,
}


def write(folder: Path, name: str) -> None:
    """Writes one of FILES, where it is not there."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        save_file({key: value.contiguous() for key, value in FILES[name]().items()}, path)
