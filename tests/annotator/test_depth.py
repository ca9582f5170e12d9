"""MiDaS, Depth Anything and their normals with random weights against the networks written out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annotator.sd_controlnet.entries.depth_anything.detector import fitting
from annotator.sd_controlnet.networks import read_weights
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Runtime

from .dense_reference import depth_anything, hybrid
from .makers import random_runtime

REGISTRY = discover()
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3.0)


def weights_of(id_: str, folder: Path) -> tuple[Runtime, dict[str, torch.Tensor]]:
    spec = REGISTRY.get(id_).spec
    runtime = random_runtime(spec, folder)
    return runtime, read_weights(folder / spec.weights[0].folder / spec.weights[0].name)


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape[:2] == expected.shape[:2]
    assert expected.std() > 5, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def midas_depth(weights: dict[str, torch.Tensor], image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return hybrid(weights, planes(image.astype(np.float32) / 127.5 - 1.0)).numpy()


def test_midas_is_the_network_of_its_paper(tmp_path: Path) -> None:
    image = picture(64, 100)
    runtime, weights = weights_of("depth", tmp_path)
    depth = midas_depth(weights, np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge"))
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 255
    found = REGISTRY.get("depth").load(runtime)(image, resolution=64)
    same(found, np.repeat(expected.astype(np.uint8)[:, :100, None], 3, axis=2))


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_normals_of_midas_are_controlnets(threshold: float, tmp_path: Path) -> None:
    image = picture(64, 100)
    runtime, weights = weights_of("normal_map", tmp_path)
    depth = midas_depth(weights, np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge"))
    depth_pt = (depth - depth.min()) / (depth - depth.min()).max()
    x = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3)
    y = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3)
    z = np.ones_like(x) * np.pi * 2.0
    x[depth_pt < threshold] = 0
    y[depth_pt < threshold] = 0
    normal = np.stack([x, y, z], axis=2)
    normal /= np.sum(normal**2.0, axis=2, keepdims=True) ** 0.5
    expected = (normal * 127.5 + 127.5).clip(0, 255).astype(np.uint8)[:, :, ::-1]
    found = REGISTRY.get("normal_map").load(runtime)(image, resolution=64, params=(threshold,))
    same(found, expected[:, :100])


@pytest.mark.parametrize(
    ("id_", "read", "exchanged", "metric"),
    [
        ("depth_anything", [8, 9, 10, 11], True, False),
        ("depth_anything_small", [8, 9, 10, 11], False, False),
        ("depth_anything_v2", [2, 5, 8, 11], True, False),
        ("depth_anything_v2_large", [2, 5, 8, 11], False, False),
        ("depth_anything_v2_giant", [2, 5, 8, 11], False, False),
        ("depth_anything_v2_metric_indoor", [2, 5, 8, 11], False, True),
    ],
)
def test_depth_anything_is_the_network_of_its_paper(
    id_: str, read: list[int], exchanged: bool, metric: bool, tmp_path: Path
) -> None:
    image = picture(64, 100)
    runtime, weights = weights_of(id_, tmp_path)
    padded = np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge")
    seen = (padded[:, :, ::-1] if exchanged else padded) / 255.0
    seen = (cv2.resize(seen, (1036, 518), interpolation=cv2.INTER_CUBIC) - MEAN) / STD
    with torch.no_grad():
        depth = depth_anything(weights, planes(seen.astype(np.float32)), read, metric=metric)
    depth = F.interpolate(depth[None, None], (64, 128), mode="bilinear")[0, 0].numpy()
    expected = ((depth - depth.min()) / (depth.max() - depth.min()) * 255).astype(np.uint8)
    expected = 255 - expected if metric else expected
    found = REGISTRY.get(id_).load(runtime)(image, resolution=64)
    same(found, np.repeat(expected[:, :100, None], 3, axis=2))


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    # 518 / 384 x 640 = 863.3: 61.67 patches; 518 / 512 x 704 = 712.3: 50.9; 518 / 64 x 192 = 1554: 111
    [(640, 384, (868, 518)), (512, 704, (518, 714)), (192, 64, (1554, 518)), (512, 512, (518, 518))],
)
def test_the_short_side_becomes_518(width: int, height: int, expected: tuple[int, int]) -> None:
    assert fitting(width, height) == expected


def test_another_network_is_refused(tmp_path: Path) -> None:
    runtime, _ = weights_of("depth", tmp_path)
    midas = tmp_path / "midas" / "dpt_hybrid-midas-501f0c75.pt"
    (tmp_path / "depth_anything").mkdir()
    midas.rename(tmp_path / "depth_anything" / "depth_anything_vits14.pth")
    with pytest.raises(AnnotatorError, match=r"not those of this preprocessor.*pretrained\.cls_token"):
        REGISTRY.get("depth_anything_small").load(runtime)(picture(64, 64), resolution=64)


def test_normals_of_a_slope() -> None:
    levels = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))
    detect = REGISTRY.get("normal_from_depth").load(Runtime())
    found = detect(np.repeat(levels[:, :, None], 3, axis=2), resolution=64)
    # two levels a pixel: Sobel sees 16; nearer to the right, so the surface looks to the left, which is red
    x, z = 16 / np.hypot(16, 2 * np.pi), 2 * np.pi / np.hypot(16, 2 * np.pi)
    assert found[32, 32].tolist() == [int(x * 127.5 + 127.5), 127, int(z * 127.5 + 127.5)]
    upright = detect(np.repeat(levels.T[:, :, None], 3, axis=2), resolution=64)
    assert upright[32, 32].tolist() == [127, int(x * 127.5 + 127.5), int(z * 127.5 + 127.5)]
    # 32 of 63 columns lie in the farther half
    half = detect(np.repeat(levels[:, :, None], 3, axis=2), resolution=64, params=(1.0, 0.5))
    assert half[32, 10].tolist() == [127, 127, 255]
    assert half[32, 50].tolist() == found[32, 50].tolist()
