"""LPIPS against its authors' package, and what must hold of it.

The frozen figures are of lpips 0.1.4 (`LPIPS(net="alex")`, with torchvision 0.28.0) filled with the very weights of
lpips_weights.py, on the very same pictures; torchmetrics 1.9.0 has the same with its true heads.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from lib_controlnet.measure.perceptual import SMALLEST, Perceptual
from lib_controlnet.measure.pictures import Pictures

from . import lpips_weights, maps


@pytest.fixture(scope="module")
def network() -> Perceptual:
    own = Perceptual().eval()
    weights = {**lpips_weights.backbone(), **lpips_weights.heads()}
    own.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("classifier")})
    return own


def everything(picture: Any) -> Any:
    return np.ones(picture.shape[:2], bool)


LPIPS = {
    # size: (noise over it, the picture turned to its negative)
    (31, 31): (0.13644099235534668, 1.2277804613113403),
    (64, 47): (0.12446516752243042, 1.2899090051651),
    (96, 120): (0.18355533480644226, 1.2910429239273071),
}
BLURRED = {0.5: 0.0007438073516823351, 1: 0.006092552095651627, 2: 0.04086286947131157, 4: 0.2353173941373825}


@pytest.mark.parametrize("size", LPIPS)
def test_as_its_authors_package_says(network: Perceptual, size: tuple[int, int]) -> None:
    wanted = maps.smooth(*size)
    found = [network.distance(one, wanted, everything(wanted)) for one in (maps.noisy(wanted), 255 - wanted)]
    assert found == pytest.approx(list(LPIPS[size]), rel=1e-5)


def test_monotone_in_blur_and_nothing_between_equals(network: Perceptual) -> None:
    wanted = maps.smooth()
    assert network.distance(wanted.copy(), wanted, everything(wanted)) == 0
    for sigma, expected in BLURRED.items():
        blurred = cv2.GaussianBlur(wanted, (0, 0), sigma)
        assert network.distance(blurred, wanted, everything(wanted)) == pytest.approx(expected, rel=1e-4)
    assert list(BLURRED.values()) == sorted(BLURRED.values())


def test_a_hosts_autocast_does_not_reach_it(network: Perceptual) -> None:
    wanted = maps.smooth()
    plain = network.distance(maps.noisy(wanted), wanted, everything(wanted))
    with torch.autocast("cpu", torch.bfloat16):
        assert network.distance(maps.noisy(wanted), wanted, everything(wanted)) == plain


# what is scored


def written_out(found: Any, wanted: Any, inside: Any) -> float:
    """The formula in plain steps; a layer's places count by the share of their part of the picture that is inside."""
    weights, heads = lpips_weights.backbone(), lpips_weights.heads()
    steps = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
    features = []
    for picture in (np.where(inside[:, :, None], found, wanted), wanted):
        x = torch.tensor(picture / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
        mean, deviation = torch.tensor([-0.03, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.45])
        x = (x - mean[:, None, None]) / deviation[:, None, None]
        layers = []
        for number, (stride, padding) in steps.items():
            x = functional.max_pool2d(x, 3, 2) if number in (3, 6) else x
            weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
            x = functional.relu(functional.conv2d(x, weight, bias, stride, padding))
            layers.append(x[0] / x[0].norm(dim=0))
        features.append(layers)
    total = 0.0
    for head, one, other in zip(heads.values(), *features, strict=True):
        squares = ((one - other) ** 2 * head[0]).sum(0).numpy()
        rows, columns = squares.shape
        share = np.zeros(squares.shape)
        for row, column in np.ndindex(rows, columns):
            top, bottom = row * inside.shape[0] // rows, -(-(row + 1) * inside.shape[0] // rows)
            left, right = column * inside.shape[1] // columns, -(-(column + 1) * inside.shape[1] // columns)
            share[row, column] = inside[top:bottom, left:right].mean()
        total += (squares * share).sum() / share.sum()
    return total


def test_places_count_by_how_much_of_them_is_inside(network: Perceptual) -> None:
    wanted = maps.smooth()
    found = maps.noisy(wanted)
    inside = np.zeros(wanted.shape[:2], bool)
    inside[10:70, 35:81] = True
    value = network.distance(found, wanted, inside)
    assert value == pytest.approx(written_out(found, wanted, inside), rel=1e-4)
    assert abs(value - network.distance(found, wanted, everything(wanted))) > 0.005


def test_what_lies_outside_says_nothing(network: Perceptual) -> None:
    """Although the last layers see the whole picture from every place."""
    wanted = maps.smooth()
    inside = np.zeros(wanted.shape[:2], bool)
    inside[:, :60] = True
    outside = wanted.copy()
    outside[:, 60:] = 255 - wanted[:, 60:]
    assert network.distance(outside, wanted, inside) == 0
    assert network.distance(outside, wanted, ~inside) > 1


# as a metric


def test_it_stands_beside_psnr_and_ssim(network: Perceptual) -> None:
    metric, wanted = Pictures(perceptual=network), maps.smooth()
    score = metric.compare(maps.noisy(wanted), wanted)
    assert score.values["lpips"] == pytest.approx(LPIPS[96, 120][0], rel=1e-5)
    assert metric.better["lpips"] is False
    assert "AlexNet" in score.measured["lpips"]
    assert score.words() == f"ssim {score.values['ssim']:.3f} lpips 0.184"
    assert score.adherence == score.values["ssim"]


def test_what_is_to_be_painted_anew_is_not_seen(network: Perceptual) -> None:
    wanted = maps.smooth()
    painted = np.dstack([wanted, np.zeros(wanted.shape[:2], np.uint8)])
    painted[20:60, 30:70, 3] = 255
    found = wanted.copy()
    found[20:60, 30:70] = 0
    score = Pictures(perceptual=network).compare(found, painted)
    assert score.values["lpips"] == 0
    assert "made alike" in score.measured["lpips"]


def test_too_small_for_its_layers_is_said(network: Perceptual) -> None:
    for size, taken in ((SMALLEST, True), (SMALLEST - 1, False)):
        wanted = maps.smooth(size, 64)
        score = Pictures(perceptual=network).compare(maps.noisy(wanted), wanted)
        assert (score.values["lpips"] is not None) is taken
        assert ("smaller than 31 pixels" in score.measured["lpips"]) is not taken


def test_without_a_network_it_says_why() -> None:
    score = Pictures(perceptual="the files are at sea").compare(maps.smooth(), maps.smooth())
    assert score.values["lpips"] is None
    assert score.measured["lpips"] == "not taken: the files are at sea"
    assert score.words() == "ssim 1.000"
