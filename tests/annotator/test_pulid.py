"""PuLID's preprocessor: EVA02-CLIP against its formulas written out, and what is made of a picture's face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annotator.sd_controlnet import libraries
from annotator.sd_controlnet.entries.faces.detector import NoFace
from annotator.sd_controlnet.entries.pulid import EVA, SPEC
from annotator.sd_controlnet.entries.pulid.detector import Pulid
from annotator.sd_controlnet.entries.pulid.eva import network_of
from annotator.sd_controlnet.renaming import load_sized
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Runtime, WeightFile
from tests.device.pretend import pretended

from .dense_reference import layer_norm, linear
from .makers.eva import MAKERS, PATCH, SIDE, eva

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def turned(x: Tensor, side: int) -> Tensor:
    """(1, heads, N, 64) by complex numbers: 16 speeds for the row, then 16 for the column; a side counts for 16."""
    speeds = 10000.0 ** (-torch.arange(16) / 16.0)
    place = torch.arange(side) * (16.0 / side)
    rows = (place[:, None] * speeds)[:, None].expand(side, side, 16)
    columns = (place[:, None] * speeds)[None].expand(side, side, 16)
    angles = torch.cat((rows, columns), dim=-1).reshape(side * side, 32)
    points = torch.view_as_complex(x.unflatten(-1, (32, 2)).contiguous()) * torch.polar(torch.ones(()), angles)
    return torch.view_as_real(points).flatten(-2)


def reference(weights: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """EVA02-CLIP as its authors' `eva_vit_model.py` has it."""
    weights = {name.removeprefix("visual."): tensor for name, tensor in weights.items()}
    kernel = weights["patch_embed.proj.weight"]
    x = F.conv2d(pixels, kernel, weights["patch_embed.proj.bias"], kernel.shape[-1]).flatten(2).transpose(1, 2)
    side = round(x.shape[1] ** 0.5)
    x = torch.cat((weights["cls_token"], x), dim=1) + weights["pos_embed"]
    seen, number = [], 0
    while f"blocks.{number}.norm1.weight" in weights:
        if number in (4, 8, 12, 16, 20):
            seen.append(x)
        name = f"blocks.{number}"
        inner = layer_norm(weights, f"{name}.norm1", x)
        q, k, v = (F.linear(inner, weights[f"{name}.attn.{part}_proj.weight"]) for part in "qkv")
        q, v = q + weights[f"{name}.attn.q_bias"], v + weights[f"{name}.attn.v_bias"]
        q, k, v = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in (q, k, v))
        q, k = (torch.cat((part[:, :, :1], turned(part[:, :, 1:], side)), dim=2) for part in (q, k))
        mixed = (torch.softmax(q @ k.transpose(-1, -2) / 8.0, dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(weights, f"{name}.attn.proj", layer_norm(weights, f"{name}.attn.inner_attn_ln", mixed))
        inner = layer_norm(weights, f"{name}.norm2", x)
        gated = F.silu(linear(weights, f"{name}.mlp.w1", inner)) * linear(weights, f"{name}.mlp.w2", inner)
        x = x + linear(weights, f"{name}.mlp.w3", layer_norm(weights, f"{name}.mlp.ffn_ln", gated))
        number += 1
    return linear(weights, "head", layer_norm(weights, "norm", x)[:, 0]), seen


def runtime_of(folder: Path, maker: Any = None) -> Runtime:
    file = folder / EVA.folder / EVA.name
    file.parent.mkdir()
    (maker or MAKERS[EVA.name])(file)
    return Runtime(weight_folders=(folder,))


@pytest.mark.parametrize("published", [True, False], ids=["with the text's part", "the image encoder alone"])
def test_eva_is_the_network_of_its_paper(published: bool, tmp_path: Path) -> None:
    bare = {name.removeprefix("visual."): value for name, value in eva().items() if name.startswith("visual.")}
    runtime = runtime_of(tmp_path, None if published else lambda file: torch.save(bare, file))
    network = load_sized(runtime, EVA, network_of)
    pixels = torch.randn(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(3))
    expected, expected_seen = zip(*(reference(eva(), one[None]) for one in pixels), strict=True)
    with torch.no_grad():
        found, seen = network(pixels)
    assert found.shape == (2, 768)
    assert len(seen) == 5
    for ours, theirs in zip((found, *seen), (expected, *zip(*expected_seen, strict=True)), strict=True):
        wanted = torch.cat(theirs)
        assert float((ours - wanted).abs().max() / wanted.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop("visual.blocks.3.attn.v_bias"), r"1 missing \(blocks\.3\.attn\.v_bias\)"),
        (lambda tensors: tensors.update({"visual.blocks.0.new": torch.zeros(1)}), r"1 unexpected \(blocks\.0\.new\)"),
        (lambda tensors: tensors.pop("visual.pos_embed"), r"no pos_embed among"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: Any, match: str, tmp_path: Path) -> None:
    def write(file: Path) -> None:
        tensors = dict(eva())
        change(tensors)
        torch.save(tensors, file)

    with pytest.raises(AnnotatorError, match=match):
        load_sized(runtime_of(tmp_path, write), EVA, network_of)


class FakeFaces:
    """InsightFace's networks that know what they find."""

    def __init__(self, *, finds: bool = True) -> None:
        self.finds = finds
        self.seen: list[np.ndarray] = []

    def finder(self) -> FakeFaces:
        return self

    def embedding(self, picture: np.ndarray) -> Tensor:
        self.seen.append(picture)
        if not self.finds:
            raise NoFace("no face was found in the picture")
        return torch.full((1, 512), 3.0)

    def embedding_of_crop(self, face: np.ndarray) -> Tensor:
        self.seen.append(face)
        return torch.full((1, 512), -2.0)


class FakeFeatures:
    def face(self, picture: np.ndarray) -> np.ndarray:
        self.picture = picture
        return np.full((512, 512, 3), 7, np.uint8)

    def plane(self, _face: np.ndarray) -> Tensor:
        noise = np.random.default_rng(6).random((512, 512), np.float32)
        return torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 9.0))[None, None]


def detect(runtime: Runtime, faces: FakeFaces, image: np.ndarray) -> dict[str, Tensor]:
    detector: Any = Pulid
    found = detector(runtime, faces, FakeFeatures(), EVA)(image, resolution=512)
    assert isinstance(found, Detection)
    assert found.map is None
    return dict(found.tensors or {})


def test_an_identity_is_both_embeddings_and_five_hidden_states(tmp_path: Path) -> None:
    faces = FakeFaces()
    image = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    runtime = runtime_of(tmp_path)
    found = detect(runtime, faces, image)
    side = SIDE * PATCH
    plane = F.interpolate(FakeFeatures().plane(image), (side, side), mode="bicubic", antialias=True)
    with torch.no_grad():
        look, seen = reference(eva(), (plane.expand(-1, 3, -1, -1) - CLIP_MEAN) / CLIP_STD)
    torch.testing.assert_close(found["id_cond"][:, :512], torch.full((1, 512), 3.0))
    torch.testing.assert_close(found["id_cond"][:, 512:], look / look.norm(), rtol=1e-4, atol=1e-6)
    for number, hidden in enumerate(seen):
        torch.testing.assert_close(found.pop(f"id_vit_hidden_{number}"), hidden, rtol=1e-4, atol=1e-4)
    assert list(found) == ["id_cond"]
    assert np.array_equal(faces.seen[0], image)


def test_a_large_picture_is_made_smaller_and_a_face_too_large_is_cut_out_first(tmp_path: Path) -> None:
    faces = FakeFaces(finds=False)
    image = np.random.default_rng(1).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    found = detect(runtime_of(tmp_path), faces, image)
    torch.testing.assert_close(found["id_cond"][:, :512], torch.full((1, 512), -2.0))
    assert [seen.shape for seen in faces.seen] == [(768, 1024, 3), (512, 512, 3)]


def test_it_works_on_a_card_and_leaves_it(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    runtime = runtime_of(tmp_path)
    expected = detect(runtime, FakeFaces(), image)
    with pretended("mps") as card:
        found = detect(replace(runtime, device="mps"), FakeFaces(), image)
        assert card.memory.peak
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_without_its_libraries_the_entry_says_what_to_install_and_the_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_is_there", lambda module: module != "insightface")
    reason = libraries.problem(SPEC.libraries)
    assert "insightface" in reason
    assert "non-commercial research" in reason
    assert [weight.licence for weight in SPEC.weights if isinstance(weight, WeightFile)][-1] == "MIT"
