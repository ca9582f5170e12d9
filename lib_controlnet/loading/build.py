"""Networks filled from weights: built without memory, then given each tensor once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import ModelFileError
from .lazy import is_fresh, outlines

Network = TypeVar("Network", bound=nn.Module)
_SHOWN = 4


def fill(
    factory: Callable[[], Network],
    weights: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device | str,
    *,
    name: str = "the file",
    kept: Collection[torch.dtype] = (),
    ignored: Collection[str] = (),
    layout: torch.memory_format = torch.contiguous_format,
) -> Network:
    """The network that `factory` builds, with `weights` in `dtype` on `device`, ready to infer.

    `dtype` None keeps those of the file; `kept`: types that are kept whatever `dtype` is (float8; the network's
    `Operations` then say in what to compute). The network's memory is its own: a tensor that somebody else holds is
    copied, one that was read for it is kept. At no time is there more than the network and one tensor in memory, beside
    what `weights` holds. `ignored`: patterns (`*`) of keys that may be left over. `layout`: of the weights of
    convolutions. Raises `ModelFileError` with the keys that are missing, left over or of another shape.
    """
    with torch.device("meta"):
        network = factory()
    wanted = network.state_dict()
    _check(f"{name} does not hold a whole {type(network).__name__}", wanted, weights, ignored)
    filled: dict[str, Tensor] = {}
    own = is_fresh(weights)
    for key in wanted:
        tensor = weights[key]
        stored = tensor.dtype if dtype is None or tensor.dtype in kept else dtype
        made = tensor.to(device, stored, copy=not own)
        filled[key] = made.contiguous(memory_format=layout) if made.dim() == 4 else made
    network.load_state_dict(filled, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _check(problem: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], ignored: Collection[str]) -> None:
    shapes = outlines(weights)
    missing = [key for key in wanted if key not in weights]
    surplus = [key for key in weights if key not in wanted and not any(fnmatchcase(key, p) for p in ignored)]
    misshapen = [
        f"{key} {tuple(shapes[key].shape)} instead of {tuple(target.shape)}"
        for key, target in wanted.items()
        if key in weights and shapes[key].shape != target.shape
    ]
    problems = [("missing", missing), ("not part of the network", surplus), ("of another shape", misshapen)]
    found = "; ".join(f"{len(keys)} tensors {what}: {_some(keys)}" for what, keys in problems if keys)
    if found:
        raise ModelFileError(
            problem,
            field="model",
            found=found,
            remedy="download the file again, or choose another control model",
        )


def _some(keys: list[str]) -> str:
    rest = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
