"""LPIPS's network from files that lie where they usually do; nothing is downloaded for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import ModelFileError
from ..loading.build import fill
from ..loading.reader import read_weights
from ..measure.perceptual import Perceptual
from .preprocess import PreprocessRunner

FOLDER = "lpips"
"""Below a folder of preprocessors' weights."""
BACKBONES = ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth")
"""torchvision's AlexNet, as PyTorch's hub names it today and before 2021."""
HEADS = "alex.pth"
_SOURCES = {
    BACKBONES[0]: "244 MB, https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    HEADS: "6 kB, in the Python package lpips or "
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
}
_PACKAGES = {"lpips": "weights/v0.1", "torchmetrics": "functional/image/lpips_models"}
"""Python packages that bring the heads, and in which of their folders."""
_LEFT_OVER = ("classifier.*",)
"""Of AlexNet's file: what tells ImageNet's classes apart."""


def perceptual(runner: PreprocessRunner) -> Perceptual | str:
    """The network, loaded once and kept among those of `runner`'s preprocessors; or why there is none, as a clause.

    Raises ModelFileError for files that are not what they are called.
    """
    runtime = runner.runtime()
    backbone = next(_existing(BACKBONES, [*_own(runtime.weight_folders), _hub()]), None)
    heads = next(_existing((HEADS,), [*_own(runtime.weight_folders), *_packaged()]), None)
    if backbone is None or heads is None:
        missing = [name for name, file in ((BACKBONES[0], backbone), (HEADS, heads)) if file is None]
        return _absent(missing, runtime.weight_folders)
    return runtime.networks.get(f"LPIPS of {backbone} and {heads}", lambda: _filled(backbone, heads))


def _own(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield folder / FOLDER
        yield folder


def _hub() -> Path:
    """Where PyTorch's hub keeps what torchvision has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _packaged() -> Iterator[Path]:
    """Folders of installed packages, none of which is imported for it."""
    for name, below in _PACKAGES.items():
        spec = importlib.util.find_spec(name)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            yield Path(folder) / below


def _existing(names: Sequence[str], folders: Sequence[Path]) -> Iterator[Path]:
    return (folder / name for folder in folders for name in names if (folder / name).is_file())


def _filled(backbone: Path, heads: Path) -> Perceptual:
    weights: Mapping[str, Tensor] = {**read_weights(backbone).weights, **read_weights(heads).weights}
    try:
        return fill(Perceptual, weights, torch.float32, "cpu", name=f"{backbone} with {heads}", ignored=_LEFT_OVER)
    except ModelFileError as error:
        raise ModelFileError(
            error.problem, found=error.found, remedy="put AlexNet's file and LPIPS's heads there, or neither"
        ) from error


def _absent(missing: Sequence[str], folders: Sequence[Path]) -> str:
    files = " and ".join(f"{name} ({_SOURCES[name]})" for name in missing)
    place = folders[0] / FOLDER if folders else f"the folder {FOLDER} of a folder of preprocessors' weights"
    return f"its weights are not there, and nothing is downloaded for it: put {files} into {place}"
