"""Where onnxruntime runs a network: on the host's graphics card by whatever provider works there, else on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

CPU = "CPUExecutionProvider"
_SEARCH = {"cudnn_conv_algo_search": "HEURISTIC"}  # by default it tries every algorithm at the first picture
_BY_DEVICE: dict[str, tuple[tuple[str, dict[str, str], bool], ...]] = {
    # ROCm's devices have the name of CUDA's. DirectML counts cards in its own order: only its first can be meant.
    "cuda": (
        ("CUDAExecutionProvider", _SEARCH, True),
        ("MIGraphXExecutionProvider", {}, True),
        ("ROCMExecutionProvider", {}, True),
        ("DmlExecutionProvider", {}, False),
    ),
    "privateuseone": (("DmlExecutionProvider", {}, True),),  # what torch-directml calls itself
    "mps": (("CoreMLExecutionProvider", {}, False),),
}
"""By torch's kind of device, providers with their options, and whether they count cards as torch does."""

Provider = tuple[str, dict[str, str]]
Network = TypeVar("Network")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened(Generic[Network]):
    """A network, the provider that runs it, and those that are left should that one fail."""

    network: Network
    provider: str
    rest: tuple[Provider, ...]

    def place(self, device: str) -> str:
        """Where its memory is, for a host whose device is `device`."""
        return "cpu" if self.provider == CPU else device


def providers(device: str) -> list[Provider]:
    """Those of this onnxruntime for torch's `device`, with their options; the CPU's is the last."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    kind, _, number = device.partition(":")
    there = onnxruntime.get_available_providers()
    found: list[Provider] = []
    for name, options, counts in _BY_DEVICE.get(kind, ()):
        if name in there:
            found.append((name, {**({"device_id": number or "0"} if counts else {}), **options}))
    return [*found, (CPU, {})]


def opened(
    name: str,
    wanted: Sequence[Provider],
    make: Callable[[list[Provider]], Network],
    used: Callable[[Network], list[str]],
) -> Opened[Network]:
    """The network `name`, made by `make` with the first of the providers that works.

    used: the providers that a network really has; onnxruntime leaves out those that it cannot start. A provider that
    fails is named in the log. Raises what the last one raised: then it was the file.
    """
    failures: list[str] = []
    for place, (provider, _) in enumerate(wanted):
        try:
            network = make(list(wanted[place:]))
        except Exception as error:  # onnxruntime has a class for each fault, none of them public
            if place == len(wanted) - 1:
                raise
            failures.append(f"{provider} ({short(error)})")
            continue
        first = (used(network) or [CPU])[0]
        names = [name for name, _ in wanted]
        reached = names.index(first) if first in names else len(names) - 1
        failures += [f"{skipped} (it did not start)" for skipped in names[place:reached]]
        if failures:
            _LOG.warning("onnxruntime runs %s with %s, after %s failed", name, first, ", ".join(failures))
        return Opened(network, first, tuple(wanted[reached + 1 :]))
    raise ValueError("no provider is wanted")


def short(error: Exception) -> str:
    """An error of onnxruntime in one line that is not too long."""
    return " ".join(str(error).split())[:200]
