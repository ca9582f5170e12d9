"""CLIP's image encoders with random weights, against transformers' image processor and the transformer written out."""

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

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Runtime

from .makers import MAKERS, random_runtime

REGISTRY = discover(None)
IDS = [
    "clip_vision",
    "ip-adapter_clip_sd15",
    "ip-adapter_clip_sdxl",
    "ip-adapter_clip_sdxl_plus_vith",
    "revision_clipvision",
    "revision_ignore_prompt",
]


def picture() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (150, 200, 3), dtype=np.uint8)


def embedding(found: np.ndarray | Detection) -> Tensor:
    assert isinstance(found, Detection)
    assert found.tensors is not None
    return found.tensors["image_embeds"]


def vit(weights: dict[str, Tensor], pixels: Tensor, quick: bool) -> tuple[Tensor, Tensor, Tensor]:
    """ViT with a class token and norms before the layers: embedding, last and last but one hidden states."""

    def part(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"vision_model.{name}.weight"], weights[f"vision_model.{name}.bias"]

    kernel = weights["vision_model.embeddings.patch_embedding.weight"]
    width = kernel.shape[0]
    x = F.conv2d(pixels, kernel, stride=kernel.shape[2]).flatten(2).transpose(1, 2)
    x = torch.cat([weights["vision_model.embeddings.class_embedding"].expand(1, 1, -1), x], dim=1)
    x = x + weights["vision_model.embeddings.position_embedding.weight"]
    states = [F.layer_norm(x, (width,), *part("pre_layrnorm"))]
    for index in range(3):
        x, layer = states[-1], f"encoder.layers.{index}"
        normed = F.layer_norm(x, (width,), *part(f"{layer}.layer_norm1"))
        q, k, v = (
            F.linear(normed, *part(f"{layer}.self_attn.{name}_proj")).unflatten(2, (16, -1)).transpose(1, 2)
            for name in "qkv"
        )
        mixed = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1) @ v
        x = x + F.linear(mixed.transpose(1, 2).flatten(2), *part(f"{layer}.self_attn.out_proj"))
        inner = F.linear(F.layer_norm(x, (width,), *part(f"{layer}.layer_norm2")), *part(f"{layer}.mlp.fc1"))
        inner = inner * torch.sigmoid(1.702 * inner) if quick else F.gelu(inner)
        states.append(x + F.linear(inner, *part(f"{layer}.mlp.fc2")))
    pooled = F.layer_norm(states[-1][:, 0], (width,), *part("post_layernorm"))
    return pooled @ weights["visual_projection.weight"].T, states[-1], states[-2]


@pytest.mark.parametrize("id_", IDS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_embeddings_are_those_of_the_formula(id_: str, masked: bool, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor

    entry, image = REGISTRY.get(id_), picture()
    runtime = random_runtime(entry.spec, tmp_path)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[40:90, 30:170] = 255
    square = cv2.resize(np.dstack([image, mask]), (224, 224), interpolation=cv2.INTER_AREA)
    pixels = CLIPImageProcessor()(square[:, :, :3], return_tensors="pt")["pixel_values"]
    if masked:
        pixels = pixels * torch.from_numpy((255 - square[:, :, 3]).astype(np.float32) / 255)
    weight = entry.spec.weights[0]
    weights = torch.load(tmp_path / weight.folder / weight.name, weights_only=True)
    expected = vit(weights, pixels, quick=id_ == "clip_vision")

    found = entry.load(runtime)(image, resolution=512, mask=mask if masked else None)
    assert isinstance(found, Detection)
    assert found.map is None
    assert found.tensors is not None
    for name, tensor in zip(("image_embeds", "last_hidden_state", "penultimate_hidden_state"), expected, strict=True):
        assert tensor.std() > 1e-3, "a constant would prove nothing"
        torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-3, atol=1e-3 * tensor.std().item())


def test_a_picture_of_zeros_and_the_middle_square(tmp_path: Path) -> None:
    """What stands for no picture is zero in the network's own units: the mean colour, as a wholly masked picture."""
    entry = REGISTRY.get("ip-adapter_clip_h")
    detect, image = entry.load(random_runtime(entry.spec, tmp_path)), picture()
    found: Any = detect(image, resolution=512)
    masked: Any = detect(image, resolution=512, mask=np.full(image.shape[:2], 255, np.uint8))
    torch.testing.assert_close(found.tensors["zero_hidden_state"], masked.tensors["penultimate_hidden_state"])
    assert not torch.allclose(found.tensors["zero_hidden_state"], found.tensors["penultimate_hidden_state"])
    middle, cropped = detect(image[:, 25:175], resolution=512), detect(image, resolution=512, params=(1.0,))
    assert torch.equal(embedding(cropped), embedding(middle))
    assert not torch.equal(embedding(cropped), embedding(found))


def test_the_mask_changes_the_embedding(tmp_path: Path) -> None:
    entry = REGISTRY.get("ip-adapter_clip_h")
    detect, image = entry.load(random_runtime(entry.spec, tmp_path)), picture()
    mask = np.full(image.shape[:2], 255, np.uint8)
    whole = embedding(detect(image, resolution=512))
    masked = embedding(detect(image, resolution=512, mask=mask))
    assert not torch.allclose(whole, masked)
    torch.testing.assert_close(masked, embedding(detect(np.zeros_like(image), resolution=512, mask=mask)))


@pytest.mark.parametrize(("other", "problem"), [("clip_g.pth", "another image encoder"), ("", "is not an image")])
def test_another_file_is_refused(other: str, problem: str, tmp_path: Path) -> None:
    entry = REGISTRY.get("ip-adapter_clip_h")
    weight = entry.spec.weights[0]
    file = tmp_path / weight.folder / weight.name
    file.parent.mkdir()
    if other:
        MAKERS[other](file)
    else:
        torch.save({"something.weight": torch.zeros(3)}, file)
    with pytest.raises(AnnotatorError, match=problem):
        entry.load(Runtime(weight_folders=(tmp_path,)))(picture(), resolution=512)


def test_revision_waits_for_its_effect() -> None:
    registry = discover()
    assert "revision_clipvision" not in registry
    assert "revision" in registry.disabled["revision_clipvision"].reason
    assert "ip-adapter_clip_sd15" in registry


def test_clip_runs_on_its_own_device(tmp_path: Path) -> None:
    """Nothing could run on the device of the others."""
    entry = REGISTRY.get("clip_vision")
    runtime = random_runtime(entry.spec, tmp_path)
    elsewhere = replace(runtime, device="no device", clip_device="cpu")
    expected, found = (entry.load(each)(picture(), resolution=512) for each in (runtime, elsewhere))
    assert torch.equal(embedding(expected), embedding(found))
