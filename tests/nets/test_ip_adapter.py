"""The tokens of every kind of IP-Adapter against diffusers' classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from lib_controlnet.loading.build import fill
from lib_controlnet.nets.ip_adapter import IPAdapter, IPAdapterConfig, Projection
from lib_controlnet.nets.operations import Operations
from tests.families.ip_files import CLIP_H_HIDDEN, FACE, KINDS, WITH_LORA, weights_of

from .sizes import SD1, SDXL

READS = {
    "base": (1024,),
    "vit-G": (1280,),
    "plus": (257, CLIP_H_HIDDEN),
    "full-face": (257, CLIP_H_HIDDEN),
    "faceid": (FACE,),
    "portrait": (FACE,),
    "faceid-plus": (FACE,),
    "unnorm": (1, FACE),
}


def flat(weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{key}": value for part, table in weights.items() for key, value in table.items()}


def ours(kind: str, config: Any = SD1, dtype: torch.dtype = torch.float32) -> IPAdapter:
    weights = flat(weights_of(kind, config))
    sizes = IPAdapterConfig.from_weights(weights)
    exact = Operations(torch.float32)
    return fill(lambda: IPAdapter(sizes, Operations(), exact), weights, dtype, "cpu")


def theirs(kind: str) -> Any:
    image = weights_of(kind, SD1)["image_proj"]
    if kind == "portrait":  # diffusers takes the width of the tokens to be a quarter of all
        image = {**image, "norm.weight": image["norm.weight"].repeat(4), "norm.bias": image["norm.bias"].repeat(4)}
    convert: Any = UNet2DConditionModel._convert_ip_adapter_image_proj_to_diffusers
    return convert(None, image, low_cpu_mem_usage=False).eval()


def embedding(kind: str, pictures: int = 3) -> Tensor:
    return torch.randn(pictures, *READS[kind], generator=torch.Generator().manual_seed(4))


def close(mine: Tensor, oracle: Tensor) -> bool:
    assert mine.shape == oracle.shape
    assert oracle.std() > 0.05, "the oracle's output must not be flat"
    return float((mine - oracle).abs().max() / oracle.abs().max()) < 1e-4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("faceid-plus", "portrait")])
@torch.no_grad()
def test_tokens_equal_diffusers(kind: str) -> None:
    given = embedding(kind)
    assert close(ours(kind).image_proj(given), theirs(kind)(given).reshape(3, -1, SD1.context_dim))


@pytest.mark.parametrize("shortcut", [None, 1.0, 0.4])
@torch.no_grad()
def test_tokens_of_faceid_plus_equal_diffusers(shortcut: float | None) -> None:
    given, hidden = embedding("faceid-plus"), embedding("plus")
    oracle = theirs("faceid-plus")
    oracle.clip_embeds = hidden[:, None]
    oracle.shortcut, oracle.shortcut_scale = shortcut is not None, shortcut or 1.0
    assert close(ours("faceid-plus").image_proj(given, hidden, shortcut), oracle(given).reshape(3, -1, SD1.context_dim))


@torch.no_grad()
def test_tokens_of_a_portrait() -> None:
    """Tencent's MLPProjModel with 16 tokens, written out."""
    weights, given = weights_of("portrait", SD1)["image_proj"], embedding("portrait")
    inner = torch.nn.functional.gelu(given @ weights["proj.0.weight"].T + weights["proj.0.bias"])
    tokens = (inner @ weights["proj.2.weight"].T + weights["proj.2.bias"]).reshape(3, 16, SD1.context_dim)
    oracle = torch.nn.functional.layer_norm(tokens, (SD1.context_dim,), weights["norm.weight"], weights["norm.bias"])
    assert close(ours("portrait").image_proj(given), oracle)


@torch.no_grad()
def test_tokens_are_computed_in_float32() -> None:
    given = embedding("plus")
    half = ours("plus", dtype=torch.float16).image_proj(given)
    assert half.dtype == torch.float32
    assert float((half - theirs("plus")(given)).abs().max()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_shapes_tell(kind: str) -> None:
    config = IPAdapterConfig.from_weights(flat(weights_of(kind, SD1)))
    assert len(config.pairs) == 16
    assert (config.pairs[0], config.pairs[-1]) == ((SD1.context_dim, 32), (SD1.context_dim, 128))
    assert config.has_added == (kind in WITH_LORA)
    wanted = {"base": 4, "vit-G": 4, "full-face": 0, "faceid": 4, "faceid-plus": 4}
    assert config.projection.tokens == wanted.get(kind, 16)
    assert (config.projection.kind is Projection.face_plus) == (kind == "faceid-plus")


def test_sdxl_has_seventy_pairs() -> None:
    assert len(IPAdapterConfig.from_weights(flat(weights_of("base", SDXL))).pairs) == 70


def test_a_missing_pair_is_named() -> None:
    weights = flat(weights_of("base", SD1))
    del weights["ip_adapter.7.to_k_ip.weight"], weights["ip_adapter.7.to_v_ip.weight"]
    with pytest.raises(ValueError, match=r"ip_adapter\.7\.to_k_ip"):
        IPAdapterConfig.from_weights(weights)


def test_the_layers_are_found_by_the_files_number() -> None:
    net = ours("faceid")
    weights = weights_of("faceid", SD1)["ip_adapter"]
    layer, own = net.layer(3), net.layer(2)
    assert layer is not None
    assert own is not None
    assert torch.equal(layer.to_k_ip.weight, weights["3.to_k_ip.weight"])
    assert sorted(own.added) == ["to_k_lora", "to_out_lora", "to_q_lora", "to_v_lora"]
    assert net.layer(32) is None
