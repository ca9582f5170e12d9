"""`torch.load` that refuses pickles with code: it reports and returns None, as this family of hosts does."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from modules import errors
from modules.shared_cmd_options import cmd_opts

Handler = Callable[[str, str], Any]

ZIP_NAME = re.compile(
    r"^([^/]+)/((data/\d+)|version|byteorder|\.format_version|\.storage_alignment|.data/serialization_id|(data\.pkl))$"
)
STORAGES = ("Float", "Half", "Int", "Long", "Double", "Byte", "BFloat16")
NUMPY_ARRAYS = ("scalar", "_reconstruct")
ALLOWED = {
    "collections": ("OrderedDict",),
    "torch": ("float32", *(f"{kind}Storage" for kind in STORAGES)),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor_from_numpy"),
    "torch.nn.modules.container": ("ParameterDict",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": NUMPY_ARRAYS,
    "numpy._core.multiarray": NUMPY_ARRAYS,
    "_codecs": ("encode",),
    "__builtin__": ("set",),
}
"""What a pickle may name, by module."""

unsafe_torch_load = torch.load
global_extra_handler: Handler | None = None


class RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors without numbers and plain containers; a name that is neither allowed nor resolved is an error."""

    extra_handler: Handler | None = None

    def find_class(self, module: str, name: str) -> Any:
        further = None if self.extra_handler is None else self.extra_handler(module, name)
        if further is not None:
            return further
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"global '{module}/{name}' is forbidden")
        return super().find_class(module, name)

    def persistent_load(self, saved_id: Any) -> Any:
        if saved_id[0] != "storage":
            raise pickle.UnpicklingError(f"a stored {saved_id[0]!r:.40} instead of numbers")
        return torch.storage.TypedStorage(_internal=True)


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
    """`torch.load` of weights; None for anything else.

    Only for a caller who asks for more (`extra_handler`, `weights_only=False`) PyTorch's other reader is used, after
    a check of every name in the file.
    """
    if cmd_opts.disable_safe_unpickle:
        return unsafe_torch_load(filename, *args, **{"weights_only": False, **kwargs})
    more = extra_handler is not None or kwargs.get("weights_only") is False
    try:
        if not more:
            return load_weights(filename, *args, **kwargs)
        check_pt(filename, extra_handler)
    except Exception:  # noqa: BLE001 - the host's rule: report and return None
        errors.report(f"{filename} is damaged or holds more than weights: it is not read", exc_info=True)
        return None
    return unsafe_torch_load(filename, *args, **{"weights_only": False, **kwargs})


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

    @staticmethod
    def _allow(handler: Handler | None) -> None:
        global global_extra_handler
        global_extra_handler = handler

    def __enter__(self) -> None:
        if global_extra_handler is not None:
            raise RuntimeError("already inside an Extra() block")
        self._allow(self.handler)

    def __exit__(self, *error: object) -> None:
        self._allow(None)


def install() -> None:
    """Put the checking loader in the place of `torch.load`."""
    torch.load = load


def uninstall() -> None:
    torch.load = unsafe_torch_load
