"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_files import refuse_external_data
from .spec import AnnotatorError, Runtime, WeightFile
from .weights import find

Outputs = list[NDArray[np.float32]]
OnnxNetwork = Callable[[NDArray[np.float32]], Outputs]
"""(1, C, H, W) float32 -> what the network gives, in the file's order."""


class Session:
    """One file's network; it has one input."""

    def __init__(self, session: Any, name: str, nbytes: int) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._name = name
        self.nbytes = nbytes

    def __call__(self, pixels: NDArray[np.float32]) -> Outputs:
        """Raises `AnnotatorError` where the network wants something else, or has no room."""
        try:
            return self._session.run(None, {self._input: np.ascontiguousarray(pixels, np.float32)})
        except Exception as error:  # onnxruntime has a class for each fault, none of them public
            raise AnnotatorError(
                f"the network {self._name} failed on a picture of {pixels.shape[3]}x{pixels.shape[2]}",
                found=_short(error),
                remedy="get the file again under the name that is listed",
            ) from error


def load_onnx(runtime: Runtime, weight: WeightFile) -> Session:
    """The network of a file, on the graphics card where onnxruntime can use it. Raises `AnnotatorError`."""
    path = find(weight, runtime)
    refuse_external_data(path)
    import onnxruntime  # pyright: ignore[reportMissingImports]

    wanted = ["CPUExecutionProvider"]
    if runtime.device.startswith("cuda"):
        wanted.insert(0, "CUDAExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        return Session(session, path.name, path.stat().st_size)
    except Exception as error:  # as above
        raise AnnotatorError(
            f"{path.name} cannot be read: it is damaged or truncated",
            found=_short(error),
            remedy=f"delete {path} and get it again",
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
