"""k-diffusion's samplers without its package `__init__`, which imports torchvision, CLIP and more.

`import k_diffusion.sampling` (and `.external`) work afterwards, for the host and for extensions.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch
from torch import Tensor


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """`x` with dimensions of size 1 appended until it has `target_dims`."""
    missing = target_dims - x.ndim
    if missing < 0:
        raise ValueError(f"input has {x.ndim} dims but target_dims is {target_dims}, which is less")
    return x[(...,) + (None,) * missing]


def _odeint(*_args: object, **_kwargs: object) -> None:
    raise ImportError("k_diffusion.sampling.log_likelihood needs the package torchdiffeq")


def mount() -> None:
    """Enter `k_diffusion` as a package whose `__init__` is not run; nothing happens when it is there."""
    if "k_diffusion" in sys.modules:
        return
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package k-diffusion is not installed")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    utils = ModuleType("k_diffusion.utils")
    utils.append_dims = append_dims  # type: ignore[attr-defined] # the only thing the samplers use of it
    sys.modules["k_diffusion.utils"] = package.utils = utils  # type: ignore[attr-defined]
    if importlib.util.find_spec("torchdiffeq") is None:
        stand_in = ModuleType("torchdiffeq")
        stand_in.odeint = _odeint  # type: ignore[attr-defined]
        sys.modules.setdefault("torchdiffeq", stand_in)
    for name in ("sampling", "external"):
        setattr(package, name, importlib.import_module(f"k_diffusion.{name}"))


def _to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Derivative of the ODE; `sigma` is a scalar in all samplers, so it needs no further dimensions."""
    return (x - denoised) / sigma


def _brownian_randn(size: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    from modules import rng

    return rng.randn_local(seed, size).to(device=device, dtype=dtype)


mount()

import k_diffusion.external  # noqa: E402
import k_diffusion.sampling  # noqa: E402
import torchsde._brownian.brownian_interval as _interval  # noqa: E402

_original = (k_diffusion.sampling.to_d, _interval._randn)
external = k_diffusion.external
sampling = k_diffusion.sampling


def install() -> None:
    """Use the host's noise in Brownian trees, so that `randn_source` and the seed decide."""
    sampling.to_d = _to_d
    _interval._randn = _brownian_randn


def uninstall() -> None:
    """Leave k-diffusion and torchsde as they came."""
    sampling.to_d, _interval._randn = _original
    sampling.torch = torch
