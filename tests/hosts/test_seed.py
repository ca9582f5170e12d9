"""The seed that preprocessors with chance in them get from a job, and that a job draws nothing else at random."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lib_controlnet.hosts.webui import generation

from .conftest import Host, as_base64, picture, pixels, unit


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ({"seed": 7, "subseed": 2}, 7),
        ({"seed": 7, "subseed": 2, "subseed_strength": 0}, 7),
        ({"seed": 7, "subseed": 2, "subseed_strength": 0.01}, 9),
        ({"seed": 7, "subseed": -1, "all_seeds": [7, 8], "all_subseeds": [40, 41]}, 7),
        ({"seed": 7, "subseed": -1, "all_seeds": [7, 8], "all_subseeds": [40, 41], "subseed_strength": 1.0}, 47),
        ({"seed": -1, "subseed": -1, "all_seeds": [5], "all_subseeds": [1]}, 5),
        ({"seed": [11, 11], "subseed": 3, "all_seeds": [11, 11], "all_subseeds": [3, 4]}, 11),
        ({"seed": [11, 12], "subseed": [3, 3], "subseed_strength": 0.5}, 14),
        ({"seed": 2**32 + 3, "subseed": -1}, 3),
        ({"seed": -1, "subseed": -1}, 0),
    ],
)
def test_first_pictures_seeds_count(p: dict[str, object], expected: int) -> None:
    assert generation._seed(SimpleNamespace(**p)) == expected


def disturb() -> None:
    """Leaves the global generators somewhere else, as other jobs do."""
    torch.seed()
    random.seed()
    np.random.seed()


SOURCE = as_base64(picture(3))
JOBS: dict[str, dict[str, Any]] = {
    "txt2img": {},
    "txt2img, batch": {"batch_size": 2, "n_iter": 2},
    "hires in pixels": {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5, "hr_upscaler": "Lanczos"},
    "hires in latents": {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5, "hr_upscaler": "Latent"},
    "img2img": {"init_images": [picture(7)]},
    "img2img, batch": {"init_images": [picture(7)], "batch_size": 2, "n_iter": 2},
    "inpaint, fill": {"init_images": [picture(7)], "mask": picture(8).convert("L"), "inpainting_fill": 0},
    "inpaint, noise": {"init_images": [picture(7)], "mask": picture(8).convert("L"), "inpainting_fill": 2},
    "ancestral": {"sampler_name": "Euler a"},
    "Brownian": {"sampler_name": "DPM++ SDE"},
    "hires with CUDA's noise": {
        "override_settings": {"randn_source": "NV"},
        "enable_hr": True,
        "denoising_strength": 0.5,
        "hr_upscaler": "Lanczos",
    },
    "CUDA's noise": {"override_settings": {"randn_source": "NV"}, "init_images": [picture(7)]},
}


@pytest.mark.parametrize("case", JOBS)
@pytest.mark.parametrize("control", [{}, {"module": "shuffle"}, {"module": "reference_only", "model": "None"}])
def test_the_same_request_gives_the_same_pictures_bit_for_bit(host: Host, case: str, control: dict[str, Any]) -> None:
    units = [unit(image=SOURCE, **control)] if control else []
    made = []
    for _ in range(2):
        disturb()
        run = host.app.img2img if "init_images" in JOBS[case] else host.app.txt2img
        made.append(host._run(run, tuple(units), dict(JOBS[case])))
    first, second = ([np.asarray(image) for image in one.images] for one in made)
    assert len(first) >= len(made[0].all_seeds)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert made[0].infotexts == made[1].infotexts


def test_the_map_follows_seed_and_variation(host: Host) -> None:
    def shuffled(**settings: Any) -> np.ndarray:
        disturb()
        return pixels(host.txt2img(unit(module="shuffle", image=SOURCE), **settings), -1)

    plain = shuffled(seed=5)
    assert np.array_equal(plain, shuffled(seed=5, subseed=9))
    assert not np.array_equal(plain, shuffled(seed=6))
    varied = shuffled(seed=5, subseed=9, subseed_strength=0.5)
    assert not np.array_equal(plain, varied)
    assert np.array_equal(varied, shuffled(seed=5, subseed=9, subseed_strength=0.5))
