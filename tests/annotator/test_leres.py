"""LeReS against controlnet_aux's lines, run on stand-ins for both networks, which are 463 and 318 MB.

controlnet_aux's module needs torchvision and scikit-image for three lines; stand-ins for those are written down here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annotator.sd_controlnet.entries.leres.boost import _window, bearable, boosted
from annotator.sd_controlnet.entries.leres.detector import Leres, _merger
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.networks import read_weights
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime

REGISTRY = discover()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """controlnet_aux's depthmap.py."""
    transforms: Any = ModuleType("torchvision.transforms.transforms")
    # of a float picture ToTensor changes the order alone, not the range
    transforms.ToTensor = lambda: lambda image: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    transforms.Normalize = lambda mean, std: (
        lambda image: (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    )
    transforms.Compose = lambda steps: lambda image: steps[1](steps[0](image))
    measure: Any = ModuleType("skimage.measure")
    measure.block_reduce = block_reduce
    parents = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", "skimage")}
    parents["torchvision.transforms"].transforms = transforms  # type: ignore[attr-defined]
    parents["skimage"].measure = measure  # type: ignore[attr-defined]
    for name, module in {**parents, transforms.__name__: transforms, "skimage.measure": measure}.items():
        monkeypatch.setitem(sys.modules, name, module)
    util: Any = ModuleType("sd_controlnet_aux.util")
    util.torch_gc = lambda: None
    controlnet_aux("leres.leres.net_tools")
    monkeypatch.setitem(sys.modules, "sd_controlnet_aux.util", util)
    yield controlnet_aux("leres.leres.depthmap")
    sys.modules.pop("sd_controlnet_aux.leres.leres.depthmap", None)


def block_reduce(image: np.ndarray, block: tuple[int, int], function: Any) -> np.ndarray:
    """scikit-image's: what lies beyond the border counts as 0."""
    rows = range(0, image.shape[0], block[0])
    columns = range(0, image.shape[1], block[1])
    whole = [[image[y : y + block[0], x : x + block[1]].max(initial=0) for x in columns] for y in rows]
    return function([np.array(whole)], axis=0)


class Depth(nn.Module):
    """A depth that depends on content and size, as a network's does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))
        self.depth_model = self.forward

    def forward(self, pixels: Tensor) -> Tensor:
        mixed = (pixels * self.weight[:, None, None]).sum(dim=1, keepdim=True)
        slope = torch.linspace(0, 300, pixels.shape[-1])
        return F.avg_pool2d(mixed, 3, 1, 1) + slope


class Merger(nn.Module):
    """(B, 2, 1024, 1024) in -1..1 to one such plane."""

    def forward(self, both: Tensor) -> Tensor:
        coarse, fine = both.split(1, dim=1)
        return torch.tanh(0.8 * F.avg_pool2d(coarse, 3, 1, 1) + fine - F.avg_pool2d(fine, 3, 1, 1))


def runtime() -> Runtime:
    found = Runtime()
    found.network("leres", lambda: Depth().eval())
    found.network("leres/merger", Merger)
    return found


def scene(height: int, width: int) -> np.ndarray:
    """Quiet ground with a few detailed places: what makes patches worth while."""
    image = np.full((height, width, 3), 90, np.uint8)
    noise = np.random.default_rng(5).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for x, y in ((20, 30), (width - 90, 60), (width // 2, height - 70)):
        image[y : y + 40, x : x + 40] = noise
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def map_of(depth: np.ndarray, near: float, behind: float) -> np.ndarray:
    """The lines of controlnet_aux's LeresDetector."""
    out = 65535 * (depth - depth.min()) / (depth.max() - depth.min())
    image = cv2.convertScaleAbs(out.astype("uint16"), alpha=(255.0 / 65535.0))
    if near != 0:
        image = cv2.threshold(image, (near / 100) * 255, 255, cv2.THRESH_TOZERO)[1]
    image = cv2.bitwise_not(image)
    if behind != 0:
        image = cv2.threshold(image, (behind / 100) * 255, 255, cv2.THRESH_TOZERO)[1]
    return image


@pytest.mark.parametrize(("near", "behind"), [(0, 0), (20, 0), (0, 35.5), (10, 30)])
def test_the_map_is_that_of_controlnet_aux(near: float, behind: float, peer: Any) -> None:
    image = scene(128, 180)
    padded = np.pad(image, ((0, 0), (0, 12), (0, 0)), mode="edge")
    expected = map_of(peer.estimateleres(padded, Depth().eval(), 192, 128), near, behind)[:, :180]
    found = Leres(runtime(), *REGISTRY.get("depth_leres").spec.weights, None)(
        image, resolution=128, params=(near, behind)
    )
    assert expected.std() > 5, "a constant map would prove nothing"
    assert np.abs(found[:, :, 0].astype(int) - expected.astype(int)).max() <= 1


class PeersMerger:
    """The interface of controlnet_aux's Pix2Pix4DepthModel, with its scaling."""

    def set_input(self, outer: np.ndarray, inner: np.ndarray) -> None:
        planes = [torch.from_numpy(plane)[None, None] for plane in (outer, inner)]
        planes = [(plane - plane.min()) / (plane.max() - plane.min()) * 2 - 1 for plane in planes]
        self.both = torch.cat(planes, dim=1)

    def test(self) -> None:
        self.fake = Merger()(self.both)

    def get_current_visuals(self) -> dict[str, Tensor]:
        return {"fake_B": self.fake}


@pytest.mark.filterwarnings("ignore:Polyfit may be poorly conditioned")  # the peer's, of patches without detail
def test_boosting_is_that_of_controlnet_aux(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = 512, 768
    image = scene(height, width)
    seen: list[int] = []
    real = peer.doubleestimate
    monkeypatch.setattr(
        peer, "generatemask", lambda size: _window(size[0])
    )  # the next test's; the peer's takes seconds
    monkeypatch.setattr(peer, "doubleestimate", lambda *given: seen.append(given[1]) or real(*given))
    with torch.no_grad():
        expected = map_of(peer.estimateboost(image, Depth().eval(), 0, PeersMerger(), max(height, width)), 0, 0)
    assert len(seen) > 1, "without patches only a part would be compared"
    weights = REGISTRY.get("depth_leres++").spec.weights
    found = Leres(runtime(), *weights)(image, resolution=min(height, width))[:, :, 0]
    assert expected.std() > 5, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_the_window_about_a_patch_is_that_of_controlnet_aux(peer: Any) -> None:
    np.testing.assert_allclose(_window(320), peer.generatemask((320, 320)), atol=1e-5)
    assert _window().shape == (3000, 3000)


@pytest.mark.parametrize("side", [64, 100])
def test_a_picture_too_small_to_boost_has_a_map(side: int) -> None:
    image = scene(160, 160)[:side, :side]
    assert bearable(image)[0] == 448
    flat = boosted(
        np.zeros((side, side, 3), np.uint8),
        lambda image, w, h: np.zeros(image.shape[:2], np.float32),
        lambda coarse, fine: np.zeros((1024, 1024), np.float32),
        lambda part: None,
    )
    assert flat.shape == (side, side)
    assert not flat.any()


def test_the_weights_lie_under_depth_model_and_module(tmp_path: Path) -> None:
    torch.save({"depth_model": {"module.depth_model.x": torch.ones(2)}, "epoch": 3}, tmp_path / "res101.pth")
    assert list(read_weights(tmp_path / "res101.pth")) == ["depth_model.x"]


def test_the_merging_network_is_the_peers_without_its_options() -> None:
    with torch.device("meta"):
        own = _merger().state_dict()
        networks = controlnet_aux("leres.pix2pix.models.networks")
        peers = networks.define_G(2, 1, 64, "unet_1024", "none", False, "normal", 0.02, [])
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in peers.state_dict().items()
    }
