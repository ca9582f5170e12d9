"""LaMa with random weights, against its formula computed from the file's names.

It was also run by hand against sd-webui-controlnet's own code at its real size: the same picture, bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError

from .makers import random_runtime

REGISTRY = discover(("inpaint_only",))
ENTRY = REGISTRY.get("inpaint_only+lama")
Weights = dict[str, Tensor]


def normed(weights: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])


def convolve(weights: Weights, name: str, x: Tensor, stride: int, padding: int) -> Tensor:
    around = F.pad(x, (padding,) * 4, mode="reflect")
    return F.conv2d(around, weights[f"{name}.weight"], weights.get(f"{name}.bias"), stride=stride)


def spectral(weights: Weights, name: str, x: Tensor) -> Tensor:
    """With NumPy's transform: channels of the spectrum are real and imaginary by turns."""
    x = torch.relu(normed(weights, f"{name}.conv1.1", convolve(weights, f"{name}.conv1.0", x, 1, 0)))
    spectrum = np.fft.rfft2(x.double().numpy(), norm="ortho")
    turns = np.stack((spectrum.real, spectrum.imag), axis=2)
    turns = turns.reshape(1, -1, *spectrum.shape[2:])
    mixed = convolve(weights, f"{name}.fu.conv_layer", torch.from_numpy(turns).float(), 1, 0)
    mixed = torch.relu(normed(weights, f"{name}.fu.bn", mixed)).double().numpy()
    back = np.fft.irfft2(mixed[:, 0::2] + 1j * mixed[:, 1::2], s=x.shape[2:], norm="ortho")
    return convolve(weights, f"{name}.conv2", x + torch.from_numpy(back).float(), 1, 0)


def step(weights: Weights, name: str, near: Tensor, far: Tensor | None, stride: int, padding: int) -> list[Tensor]:
    out = [convolve(weights, f"{name}.ffc.convl2l", near, stride, padding)]
    if f"{name}.ffc.convl2g.weight" in weights:
        out.append(convolve(weights, f"{name}.ffc.convl2g", near, stride, padding))
    if far is not None:
        out[0] = out[0] + convolve(weights, f"{name}.ffc.convg2l", far, stride, padding)
        out[1] = out[1] + spectral(weights, f"{name}.ffc.convg2g", far)
    return [torch.relu(normed(weights, f"{name}.bn_{kind}", x)) for kind, x in zip("lg", out, strict=False)]


def generator(weights: Weights, x: Tensor) -> Tensor:
    (x,) = step(weights, "model.1", F.pad(x, (3, 3, 3, 3), mode="reflect"), None, 1, 0)
    (x,) = step(weights, "model.2", x, None, 2, 1)
    (x,) = step(weights, "model.3", x, None, 2, 1)
    near, far = step(weights, "model.4", x, None, 2, 1)
    for block in ("model.5", "model.6"):
        inner = step(weights, f"{block}.conv1", near, far, 1, 1)
        inner = step(weights, f"{block}.conv2", inner[0], inner[1], 1, 1)
        near, far = near + inner[0], far + inner[1]
    x = torch.cat((near, far), dim=1)
    for index in (8, 11, 14):
        weight, bias = weights[f"model.{index}.weight"], weights[f"model.{index}.bias"]
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        x = torch.relu(normed(weights, f"model.{index + 1}", x))
    return torch.sigmoid(convolve(weights, "model.18", x, 1, 3))


def picture() -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(6).integers(0, 256, (150, 201, 3), dtype=np.uint8)
    mask = np.zeros((150, 201), np.uint8)
    mask[40:100, 50:170] = 255
    mask[100:110, 50:170] = 100
    return cv2.GaussianBlur(noise, (0, 0), 3.0), mask


def test_the_filling_is_the_formula(tmp_path: Path) -> None:
    runtime = random_runtime(ENTRY.spec, tmp_path)
    image, mask = picture()
    weights = torch.load(tmp_path / "lama/ControlNetLama.pth", weights_only=True)
    seen = cv2.resize(np.dstack([image, mask]), (343, 256), interpolation=cv2.INTER_CUBIC)
    seen = np.pad(seen, ((0, 0), (0, 41), (0, 0)), mode="edge").astype(np.float32) / 255
    planes = torch.from_numpy(seen).permute(2, 0, 1)[None]
    hole = (planes[:, 3:] > 0.5).float()
    kept = planes[:, :3] * (1 - hole)
    drawn = generator(weights, torch.cat((kept, hole), dim=1))
    small = ((drawn * hole + kept) * 255).clamp(0, 255)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    large = cv2.resize(np.ascontiguousarray(small[:, :343]), (201, 150), interpolation=cv2.INTER_LINEAR)
    alpha = mask[:, :, None] / 255.0
    expected = (large * alpha + image * (1 - alpha)).astype(np.uint8)

    found = ENTRY.load(runtime)(image, resolution=512, mask=mask)
    assert isinstance(found, np.ndarray)
    assert expected[40:100, 50:170].std() > 1, "a constant filling would prove nothing"
    assert np.array_equal(found[:, :, 3], mask)
    assert np.array_equal(found[mask == 0][:, :3], image[mask == 0])
    assert np.abs(found[:, :, :3].astype(int) - expected.astype(int)).max() <= 1


def test_without_a_mask_nothing_is_filled(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="mask"):
        ENTRY.load(random_runtime(ENTRY.spec, tmp_path))(picture()[0], resolution=512)
