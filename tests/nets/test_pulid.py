"""The tokens of PuLID v1 and v1.1 against the authors' networks, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_controlnet.loading.build import fill
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.nets.operations import Operations
from lib_controlnet.nets.pulid import Pulid, PulidConfig
from tests.families.pulid_files import KINDS, embeddings, tokens, weights_of

from .sizes import SD1, SDXL


def flat(weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{key}": value for part, table in weights.items() for key, value in table.items()}


def ours(kind: str, config: object = SDXL, dtype: torch.dtype = torch.float32) -> Pulid:
    weights = canonical(flat(weights_of(kind, config)))
    sizes = PulidConfig.from_weights(weights)
    exact = Operations(torch.float32)
    return fill(lambda: Pulid(sizes, Operations(), exact), weights, dtype, "cpu")


def told(net: Pulid, given: dict[str, Tensor]) -> Tensor:
    return net.image_proj(given["id_cond"], [given[f"id_vit_hidden_{level}"] for level in range(5)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pictures", [1, 3])
@torch.no_grad()
def test_tokens_are_the_authors(kind: str, pictures: int) -> None:
    given = embeddings(pictures)
    oracle = tokens(weights_of(kind, SDXL), given)
    mine = told(ours(kind), given)
    assert mine.shape == oracle.shape == (1, 32 if kind == "v1.1" else 5 + 5 * pictures, SDXL.context_dim)
    assert oracle.std() > 0.05, "the oracle's output must not be flat"
    assert float((mine - oracle).abs().max() / oracle.abs().max()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tokens_are_made_in_float32(kind: str) -> None:
    mine = told(ours(kind, dtype=torch.float16), embeddings())
    assert mine.dtype is torch.float32
    assert float((mine - told(ours(kind), embeddings())).abs().max()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_read_from_shapes(kind: str) -> None:
    config = ours(kind, SD1).config
    assert len(config.pairs) == 16
    assert config.width == SD1.context_dim
    assert (config.queries, config.depth, config.heads) == ((32, 10, 2) if kind == "v1.1" else (0, 0, 0))
