"""`torch.load` that refuses pickles with code: it reports and returns None, as this family of hosts does."""

from __future__ import annotations

import collections
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from modules import errors
from modules.shared_cmd_options import cmd_opts

Handler = Callable[[str, str], Any]

ZIP_NAME = re.compile(
    r"^([^/]+)/((data/\d+)|version|byteorder|\.format_version|\.storage_alignment|.data/serialization_id|(data\.pkl))$"
)
TORCH_NAMES = {
    "FloatStorage", "HalfStorage", "IntStorage", "LongStorage", "DoubleStorage", "ByteStorage", "BFloat16Storage",
    "float32",
}  # fmt: skip
TORCH_UTILS = {"_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor_from_numpy"}

unsafe_torch_load = torch.load
global_extra_handler: Handler | None = None


class RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; any other name is an error."""

    extra_handler: Handler | None = None

    def persistent_load(self, saved_id: Any) -> Any:
        assert saved_id[0] == "storage"
        return torch.storage.TypedStorage(_internal=True)

    def find_class(self, module: str, name: str) -> Any:
        found = self.extra_handler(module, name) if self.extra_handler is not None else None
        if found is not None:
            return found
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in TORCH_UTILS:
            return super().find_class(module, name)
        if module == "torch" and name in TORCH_NAMES:
            return getattr(torch, name)
        if (module, name) == ("torch.nn.modules.container", "ParameterDict"):
            return torch.nn.ParameterDict
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("scalar", "_reconstruct"):
            return super().find_class(module, name)
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        if (module, name) in (("_codecs", "encode"), ("__builtin__", "set")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"global '{module}/{name}' is forbidden")


def check_pt(filename: str | Path, extra_handler: Handler | None) -> None:
    """Read the pickle part with the restricted unpickler; raises when something else is in it."""

    def check(file: Any, objects: int) -> None:
        unpickler = RestrictedUnpickler(file)
        unpickler.extra_handler = extra_handler
        for _ in range(objects):
            unpickler.load()

    if not zipfile.is_zipfile(filename):
        with open(filename, "rb") as file:
            check(file, 5)  # the old format: five pickles, then the numbers
        return
    with zipfile.ZipFile(filename) as archive:
        bad = [x for x in archive.namelist() if not ZIP_NAME.match(x)]
        pickles = [x for x in archive.namelist() if x.endswith("/data.pkl")]
        if bad or len(pickles) != 1:
            raise pickle.UnpicklingError(f"bad file inside {filename}: {bad or pickles}")
        with archive.open(pickles[0]) as file:
            check(file, 1)


def load_with_extra(filename: Any, extra_handler: Handler | None = None, *args: Any, **kwargs: Any) -> Any:
    """`torch.load` after the check; None when the file does not pass."""
    try:
        if not cmd_opts.disable_safe_unpickle:
            check_pt(filename, extra_handler)
    except Exception:  # noqa: BLE001 - the host's rule: report and return None
        errors.report(
            f"Error verifying pickled file from {filename}: the program is not going to read it", exc_info=True
        )
        return None
    if extra_handler is not None or cmd_opts.disable_safe_unpickle or kwargs.get("weights_only") is False:
        return unsafe_torch_load(filename, *args, **{"weights_only": False, **kwargs})
    try:  # read by PyTorch's own reader of weights: what was checked need not be what is read
        return load_weights(filename, *args, **kwargs)
    except pickle.UnpicklingError:
        errors.report(f"{filename} holds more than weights: the program is not going to read it", exc_info=True)
        return None


def load_weights(filename: Any, *args: Any, **kwargs: Any) -> Any:
    """PyTorch's `load` of weights only. Raises UnpicklingError for anything else, TorchScript too, which PyTorch before
    2.6 would run."""
    if not hasattr(filename, "read"):
        with open(filename, "rb") as file:
            return load_weights(file, *args, **kwargs)
    start = filename.tell()
    packed = filename.read(4) == b"PK\x03\x04"
    filename.seek(start)
    if packed and "constants.pkl" in torch._C.PyTorchFileReader(filename).get_all_records():
        raise pickle.UnpicklingError("a TorchScript program")
    filename.seek(start)
    return unsafe_torch_load(filename, *args, **{**kwargs, "weights_only": True})


def load(filename: Any, *args: Any, **kwargs: Any) -> Any:
    return load_with_extra(filename, global_extra_handler, *args, **kwargs)


class Extra:
    """`with Extra(handler):` lets `torch.load` meet further names, which `handler(module, name)` resolves."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __enter__(self) -> None:
        global global_extra_handler
        assert global_extra_handler is None, "already inside an Extra() block"
        global_extra_handler = self.handler

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global global_extra_handler
        global_extra_handler = None


def install() -> None:
    """Put the checking loader in the place of `torch.load`."""
    torch.load = load


def uninstall() -> None:
    torch.load = unsafe_torch_load
