"""What an encoder of pictures sees: IP-Adapter, revision, faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.embeddings import ROWS
from ..core.errors import ControlNetError
from ..core.images import Pixels
from ..core.preprocessors import Detection
from .score import Mask, Score, evidence


@dataclass(frozen=True)
class Embedded:
    """The cosine between what the unit's own encoder sees in two pictures. It has no places: `inside` says nothing."""

    kind: str = "embedding"
    main: str = "cosine"

    @property
    def better(self) -> Mapping[str, bool]:
        return {"cosine": True}

    def compare(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> Score:
        """As `Metric.compare`; with several pictures wanted the mean. Raises ControlNetError for two encoders."""
        mine, theirs = (dict(evidence(one).tensors or {}) for one in (found, wanted))
        name = next((name for name in (*ROWS, *theirs) if name in mine and name in theirs), None)
        if name is None:
            raise ControlNetError(
                "there are no two embeddings of one encoder to compare",
                found=f"{', '.join(mine) or 'none'} against {', '.join(theirs) or 'none'}",
                remedy="take the preprocessor that the unit has",
            )
        a, b = _row_by_row(mine[name]), _row_by_row(theirs[name])
        if a.shape[1] != b.shape[1]:
            raise ControlNetError("the embeddings have not one length", found=f"{a.shape[1]} and {b.shape[1]}")
        cosine = float((_unit(b) @ _unit(a).mean(0)).mean())
        text = f"cosine of {name}, image against image, {a.shape[1]} numbers"
        return Score(self.kind, {"cosine": cosine}, {"cosine": text}, self.main, max(0.0, cosine))

    def followed(self, found: Pixels | Detection, wanted: Pixels | Detection, inside: Mask | None = None) -> None:
        """It has no places."""
        return None


def _row_by_row(tensor: Any) -> Any:
    """(n, numbers) float64 of a tensor (n, numbers), (numbers,) or (n, tokens, width), whose tokens are averaged."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().float().cpu().numpy()
    array = np.asarray(tensor, np.float64)
    if array.ndim < 2:
        return array.reshape(1, -1)
    return array if array.ndim == 2 else array.reshape(array.shape[0], -1, array.shape[-1]).mean(1)


def _unit(rows: Any) -> Any:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
