"""Segment Anything against controlnet_aux's mask generator and drawing, which need torchvision for three functions.

Networks with random weights answer with masks all over the picture; so a stand-in with masks around their points is
compared too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from annotator.sd_controlnet.entries.sam import MOBILE, SPECS
from annotator.sd_controlnet.entries.sam.detector import SegmentAnything
from annotator.sd_controlnet.entries.sam.network import TIMM, Network
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime

from .makers import random_runtime
from .makers.sam import mobile, vit
from .torchvision_stand_in import stand_in

REGISTRY = discover()
FOLDER = "sd_controlnet_aux.segment_anything"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """controlnet_aux's automatic_mask_generator.py."""
    stand_in(monkeypatch)
    controlnet_aux("segment_anything.modeling.tiny_vit_sam", instead=TIMM)
    sam = controlnet_aux("segment_anything.modeling.sam").Sam
    monkeypatch.setattr(sys.modules[f"{FOLDER}.modeling"], "Sam", sam, raising=False)
    yield controlnet_aux("segment_anything.automatic_mask_generator")
    for name in ("automatic_mask_generator", "predictor", "utils.transforms"):
        sys.modules.pop(f"{FOLDER}.{name}", None)


def drawn(found: list[dict[str, Any]], size: tuple[int, ...]) -> np.ndarray:
    """The lines of controlnet_aux's show_anns, with NumPy's global generator begun at 0."""
    np.random.seed(0)
    canvas = Image.fromarray(np.zeros((*size, 3), np.uint8), mode="RGB")
    for one in sorted(found, key=lambda one: one["area"], reverse=True):
        paint = np.empty((*size, 3), np.uint8)
        for channel in range(3):
            paint[:, :, channel] = np.random.randint(255, dtype=np.uint8)
        canvas.paste(Image.fromarray(paint, mode="RGB"), (0, 0), Image.fromarray(np.uint8(one["segmentation"] * 255)))
    return np.array(canvas)


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6.0).astype(np.float32)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


class Encoder(nn.Module):
    img_size = 128

    def forward(self, pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels, 16)


class Prompts(nn.Module):
    def forward(self, points: tuple[Tensor, Tensor], boxes: None, masks: None) -> tuple[Tensor, None]:
        return points[0].float(), None

    def get_dense_pe(self) -> None:
        return None


class Discs(nn.Module):
    """Three discs about each point; the picture there says how large, how sharp and how good they are."""

    def forward(self, image_embeddings: Tensor, sparse_prompt_embeddings: Tensor, **_rest: Any) -> Any:
        points = sparse_prompt_embeddings
        cells = (points[:, 0] / 16).long().clamp(0, 7)
        there = image_embeddings[0, :, cells[:, 1], cells[:, 0]].T
        rows, columns = torch.meshgrid(*2 * [torch.arange(32) * 4.0 + 2.0], indexing="ij")
        away = (columns - points[:, :, :1]).hypot(rows - points[:, :, 1:2])
        radius = torch.tensor([7.0, 14.0, 30.0]) * (1 + 0.2 * there[:, :1])
        masks = (radius[:, :, None, None] - away[:, None]) * (2.0 + there[:, 1:2, None, None])
        quality = 0.9 + 0.1 * torch.sin(there[:, 2:] * 9 + radius + points[:, 0].sum(dim=1, keepdim=True))
        return masks, quality


def with_discs(sam: Any) -> Any:
    return sam(Encoder(), Prompts(), Discs())


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 70)])
def test_the_segments_are_those_of_controlnet_aux(height: int, width: int, peer: Any) -> None:
    image = picture(height, width)
    with torch.no_grad():
        found = peer.SamAutomaticMaskGenerator(with_discs(peer.Sam)).generate(image)
    expected = drawn(found, image.shape[:2])
    runtime = Runtime()
    network = Network(Encoder(), Prompts(), Discs(), Encoder.img_size)
    runtime.network("mobile_sam.pt", lambda: network)
    detected = REGISTRY.get("mobile_sam").load(runtime)(image, resolution=min(height, width))
    assert isinstance(detected, np.ndarray)
    assert len(found) > 20, "a few segments would prove little"
    assert np.unique(expected.reshape(-1, 3), axis=0).shape[0] > 10
    assert (detected != expected).any(axis=2).mean() < 0.001, "but for the sign of a logit near 0"


def test_a_network_of_the_files_sizes_gives_the_peers_masks(
    peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.sd_controlnet.entries.sam.detector.POINTS_PER_SIDE", 12)
    entry = REGISTRY.get("SAMPreprocessor")
    image = picture(96, 128)
    with torch.no_grad():
        found = peer.SamAutomaticMaskGenerator(vit(), points_per_side=12).generate(image)
    expected = drawn(found, image.shape[:2])
    detected = entry.load(random_runtime(entry.spec, tmp_path))(image, resolution=96)
    assert isinstance(detected, np.ndarray)
    assert 0.05 < (expected > 0).any(axis=2).mean() < 0.95, "a constant map would prove nothing"
    assert (detected != expected).any(axis=2).mean() < 0.001


def test_mobile_sam_answers_as_the_peers_network(tmp_path: Path) -> None:
    peers = mobile()
    torch.save(peers.state_dict(), tmp_path / "mobile_sam.pt")
    network = SegmentAnything(Runtime(weight_folders=(tmp_path,)), MOBILE).network()
    pixels = torch.from_numpy(picture(640, 1024).transpose(2, 0, 1).copy()).float()
    points = torch.tensor([[100.0, 50.0], [700.0, 333.0]])
    with torch.no_grad():
        masks, quality = network.masks(network.embed(pixels[None]), points)
        embedding = peers.image_encoder(peers.preprocess(pixels)[None])
        sparse, dense = peers.prompt_encoder((points[:, None], torch.ones(2, 1)), None, None)
        expected = peers.mask_decoder(embedding, peers.prompt_encoder.get_dense_pe(), sparse, dense, True)
    assert expected[0].std() > 1
    torch.testing.assert_close(masks, expected[0], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(quality, expected[1], rtol=1e-4, atol=1e-4)


def test_a_picture_without_segments_is_black() -> None:
    class Nothing(Discs):
        def forward(self, *given: Any, **named: Any) -> Any:
            masks, quality = super().forward(*given, **named)
            return masks, quality - 1

    runtime = Runtime()
    runtime.network("mobile_sam.pt", lambda: Network(Encoder(), Prompts(), Nothing(), 128))
    found = REGISTRY.get("mobile_sam").load(runtime)(picture(64, 64), resolution=64)
    assert isinstance(found, np.ndarray)
    assert not found.any()


def test_nothing_is_left_of_what_stands_in_for_timm() -> None:
    controlnet_aux("segment_anything.modeling.tiny_vit_sam", instead=TIMM)
    assert not any(isinstance(sys.modules.get(name), SimpleNamespace) for name in TIMM)
    assert [spec.id for spec in SPECS] == ["mobile_sam", "sam_vit_b"]
