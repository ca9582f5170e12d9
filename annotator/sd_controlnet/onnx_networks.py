"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_files import refuse_external_data
from .onnx_providers import Opened, Provider, opened, providers, short
from .spec import AnnotatorError, Runtime, WeightFile
from .weights import find

Outputs = list[NDArray[np.float32]]
OnnxNetwork = Callable[[NDArray[np.float32]], Outputs]
"""(1, C, H, W) float32 -> what the network gives, in the file's order."""
_LOG = logging.getLogger(__name__)


class Session:
    """One file's network; it has one input. `device`: where its memory is, of the host's device and the CPU."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._host_device = device
        self._opened = self._open(providers(device))
        self.nbytes = path.stat().st_size

    @property
    def device(self) -> str:
        """Where its memory is."""
        return self._opened.place(self._host_device)

    def __call__(self, pixels: NDArray[np.float32]) -> Outputs:
        """Raises `AnnotatorError` where the network wants something else, or has no room."""
        pixels = np.ascontiguousarray(pixels, np.float32)
        while True:
            session = self._opened.network
            try:
                return session.run(None, {session.get_inputs()[0].name: pixels})
            except Exception as error:  # onnxruntime has a class for each fault, none of them public
                if not self._opened.rest:
                    raise AnnotatorError(
                        f"the network {self._path.name} failed on a picture of {pixels.shape[3]}x{pixels.shape[2]}",
                        found=short(error),
                        remedy="get the file again under the name that is listed",
                    ) from error
                _LOG.warning("%s failed with %s: %s", self._path.name, self._opened.provider, short(error))
            self._opened = self._open(self._opened.rest)

    def _open(self, wanted: Sequence[Provider]) -> Opened[Any]:
        import onnxruntime  # pyright: ignore[reportMissingImports]

        def make(chosen: list[Provider]) -> Any:
            return onnxruntime.InferenceSession(str(self._path), providers=chosen)

        try:
            return opened(self._path.name, wanted, make, lambda session: session.get_providers())
        except Exception as error:  # as above
            raise AnnotatorError(
                f"{self._path.name} cannot be read: it is damaged or truncated",
                found=short(error),
                remedy=f"delete {self._path} and get it again",
            ) from error


def load_onnx(runtime: Runtime, weight: WeightFile) -> Session:
    """The network of a file, on the graphics card where onnxruntime can use it. Raises `AnnotatorError`."""
    path = find(weight, runtime)
    refuse_external_data(path)
    return Session(path, runtime.device)
