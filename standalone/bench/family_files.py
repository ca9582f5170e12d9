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
from lib_controlnet.nets.ip_adapter import IPAdapter, IPAdapterConfig, LayerSizes, Projection, ProjectionSizes
from lib_controlnet.nets.lllite import LLLite, LLLiteSizes
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


def ip_adapter_plus() -> Mapping[str, Tensor]:
    """16 tokens by a resampler, for each attention to the prompt (encoder, decoder, middle)."""
    base = networks.outline_of_unet()
    keys = [key for key in base if key.endswith(".attn2.to_k.weight")]
    keys.sort(key=lambda key: ("input", "output", "middle").index(key.split("_")[0]))
    layers = [LayerSizes(2 * place + 1, (768, base[key].shape[0])) for place, key in enumerate(keys)]
    projection = ProjectionSizes(Projection.resampler, 1280, 768, 16, inner=768, depth=4, heads=12)
    net = IPAdapter(IPAdapterConfig(projection, tuple(layers)), Operations(), Operations())
    return networks.drawn(net, 9).state_dict()


def control_lllite() -> Mapping[str, Tensor]:
    """A module before each attention projection of encoder and middle, as kohya's script makes them."""
    sizes: dict[str, LLLiteSizes] = {}
    for key, weight in networks.outline_of_unet().items():
        ours = key.endswith((".attn1.to_q.weight", ".attn1.to_k.weight", ".attn1.to_v.weight", ".attn2.to_q.weight"))
        if ours and not key.startswith("output_blocks"):
            number = int(key.split(".")[1]) if key.startswith("input_blocks") else 9
            depth = 1 if number <= 2 else 2 if number <= 5 else 3
            name = f"lllite_unet_{key.removesuffix('.weight').replace('.', '_')}"
            sizes[name] = LLLiteSizes(weight.shape[1], 64, 32, depth, False)
    return networks.drawn(LLLite(sizes), 10).state_dict()


FILES: Mapping[str, Callable[[], Mapping[str, Tensor]]] = {
    "bench_t2i_adapter": t2i_adapter,
    "bench_controlnet_union": controlnet_union,
    "bench_control_lora": control_lora,
    "bench_ip_adapter_plus": ip_adapter_plus,
    "bench_lllite": control_lllite,
}


def embeddings(name: str) -> tuple[Mapping[str, Tensor], ...]:
    """What an image encoder gives of a picture, for the one of FILES that takes such."""
    if name != "bench_ip_adapter_plus":
        return ()
    generator = torch.Generator().manual_seed(11)
    names = ("penultimate_hidden_state", "zero_hidden_state")
    return ({name: torch.randn(1, 257, 1280, generator=generator) for name in names},)


def write(folder: Path, name: str) -> None:
    """Writes one of FILES, where it is not there."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        save_file({key: value.contiguous() for key, value in FILES[name]().items()}, path)
