"""Networks of preprocessors: weights into modules, pictures into tensors. Imported only by what runs a network."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# A1111 puts a checker that may return None in the place of `torch.load`. This is PyTorch's own, whatever is there.
from torch.serialization import load as torch_load

from .spec import AnnotatorError, OutOfRange, Runtime, WeightFile
from .weights import find

_WRAPPERS = ("state_dict", "model", "module", "params_ema", "params", "model_state_dict", "depth_model")
_DATA_PARALLEL = "module."
Module = TypeVar("Module", bound=nn.Module)


def _refuse_programs(file: BinaryIO) -> None:
    """Raises UnpicklingError for TorchScript and for a packed archive, which `torch.load` before 2.6 would run.

    PyTorch's own reader is asked, and `file` is the very one that is read.
    """
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        program = "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records()
    else:
        program = tarfile.is_tarfile(file)
    file.seek(0)
    if program:
        raise pickle.UnpicklingError("a TorchScript program or a packed archive")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a pickle without code, by name.

    Training left some of them in an outer dictionary, or with names that begin with "module.": both are undone.
    Raises `AnnotatorError` for a damaged file and for one that holds code.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())  # a mapped file that is overwritten meanwhile ends the process
        with path.open("rb") as file:
            _refuse_programs(file)
            loaded: Any = torch_load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AnnotatorError(
            f"{path.name} is not a file of weights alone: it holds code, or is damaged",
            found=" ".join(str(error).split())[:200],
            remedy=f"delete {path} and get it again; a file that holds code is never run",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # any error of the readers: a truncated file ends in half a dozen different ones
        raise AnnotatorError(
            f"{path.name} cannot be read: it is damaged or truncated",
            found=f"{type(error).__name__}: {error}",
            remedy=f"delete {path} and get it again",
        ) from error
    if not isinstance(loaded, Mapping):
        raise AnnotatorError(
            f"{path.name} holds no weights by name",
            found=type(loaded).__name__,
            remedy=f"delete {path} and get the right file",
        )
    for wrapper in _WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith(_DATA_PARALLEL) for name in tensors):
        return {name.removeprefix(_DATA_PARALLEL): value for name, value in tensors.items()}
    return tensors


def fill(module: Module, weights: Mapping[str, Tensor], path: Path) -> Module:
    """`module` with these weights, every one of them. Raises `AnnotatorError` that lists what does not fit."""
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    wrong = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or unexpected or wrong:
        found = [
            f"{len(names)} {kind} ({', '.join(names[:3])})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if names
        ]
        raise AnnotatorError(
            f"the weights in {path.name} are not those of this preprocessor",
            found="; ".join(found),
            remedy=f"delete {path} and get the right file",
        )
    module.load_state_dict(dict(weights))
    return module


def load_network(
    runtime: Runtime,
    weight: WeightFile,
    make: Callable[[], Module],
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda weights: weights,
) -> Module:
    """The network of one weight file: found, read, filled, `ready`; `rename` makes the file's names the module's."""
    path = find(weight, runtime)
    return ready(fill(make(), rename(read_weights(path)), path), runtime)


def ready(network: Module, runtime: Runtime) -> Module:
    """`network` for inference in the runtime's type, on the CPU: the store brings it to the device.

    What goes into it is cast to that type, and what comes out of it, `checked`, to float32.
    """
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    network = network.to("cpu", dtype).eval().requires_grad_(False)
    if dtype is not torch.float32:
        network.register_forward_pre_hook(
            lambda _network, given, named: (_cast(given, dtype), _cast(named, dtype)), with_kwargs=True
        )
        network.register_forward_hook(lambda _network, _given, found: _cast(checked(found), torch.float32))
    return network


def checked(found: Any) -> Any:
    """What a network gave, itself. Raises `OutOfRange` where a type of 16 bits was too small for it."""
    if isinstance(found, (Tensor, np.ndarray)):
        values = torch.as_tensor(found)
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise OutOfRange("the network's numbers left the range of 16 bits", found=str(tuple(values.shape)))
    elif isinstance(found, (list, tuple, dict)):
        for part in found.values() if isinstance(found, dict) else found:
            checked(part)
    return found


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The real numbers among tensors, or containers of them, in another type."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):  # transformers' answers are dictionaries with attributes: changed, not made anew
        for name, part in value.items():
            value[name] = _cast(part, dtype)
        return value
    return type(value)(_cast(part, dtype) for part in value) if isinstance(value, (list, tuple)) else value


def to_tensor(image: NDArray[Any], runtime: Runtime) -> Tensor:
    """(H, W, C) uint8 or float to (1, C, H, W) float32 on the runtime's device, values unchanged."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    return torch.from_numpy(planes).to(runtime.device, torch.float32)


def normalised(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(B, C, H, W) minus `mean`, over `std`, channel by channel."""
    shape = (1, -1, 1, 1)
    return (image - image.new_tensor(mean).view(shape)) / image.new_tensor(std).view(shape)


def to_pixels(plane: Tensor) -> NDArray[np.uint8]:
    """(H, W) or (C, H, W) float 0..255 as (H, W) or (H, W, C) uint8: cut off at the ends and truncated."""
    if plane.ndim == 3:
        plane = plane.permute(1, 2, 0)
    return np.ascontiguousarray(plane.detach().float().cpu().numpy().clip(0, 255).astype(np.uint8))
