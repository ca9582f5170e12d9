"""CUDA's autocast acted out on the processor, whose own one widens fewer layers.

Which layers it narrows and widens: PyTorch's documentation, "Autocast Op Reference". Only the layers of our networks
are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NARROWED = frozenset((F.linear, F.conv2d, torch.conv2d, F.scaled_dot_product_attention, torch.matmul, torch.bmm))
WIDENED = frozenset((F.group_norm, F.layer_norm, F.softmax, torch.exp))


class CudaAutocast(TorchFunctionMode):
    """`with CudaAutocast(torch.float16)`: tensors of the processor are cast as `torch.autocast("cuda")` casts."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __enter__(self) -> CudaAutocast:
        torch.set_autocast_dtype("cuda", self.dtype)
        torch.set_autocast_enabled("cuda", True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_autocast_enabled("cuda", False)
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        wanted = self.dtype if func in NARROWED else torch.float32 if func in WIDENED else None
        if wanted is None or not torch.is_autocast_enabled("cuda"):
            return func(*args, **(kwargs or {}))
        cast = lambda leaf: leaf.to(wanted) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf  # noqa: E731
        return func(*tree_map(cast, tuple(args)), **tree_map(cast, dict(kwargs or {})))


class Kernels(TorchDispatchMode):
    """Counts what is run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))

    @property
    def casts(self) -> int:
        """Changes of type."""
        return self.counts["_to_copy"]
