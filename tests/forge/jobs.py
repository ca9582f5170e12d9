"""Jobs that every host does alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.hosts.conftest import Host, as_base64, picture, pixels, unit

MASK = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
MASKED = {"mask": MASK, "inpaint_full_res": True, "inpaint_full_res_padding": 8, "mask_blur": 0}
HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 2,
}

Run = Callable[[Host], Any]
JOBS: dict[str, Run] = {
    "none": lambda host: host.txt2img(),
    "one": lambda host: host.txt2img(unit()),
    "weight 0": lambda host: host.txt2img(unit(weight=0.0)),
    "weight 0.5": lambda host: host.txt2img(unit(weight=0.5)),
    "prompt": lambda host: host.txt2img(unit(control_mode="My prompt is more important")),
    "control": lambda host: host.txt2img(unit(control_mode="ControlNet is more important")),
    "two": lambda host: host.txt2img(unit(), unit(model="second", weight=0.7)),
    "batch": lambda host: host.txt2img(unit(), batch_size=2),
    "count": lambda host: host.txt2img(unit(), n_iter=2),
    "cfg 1": lambda host: host.txt2img(unit(), cfg_scale=1.0),
    "cfg 1 control": lambda host: host.txt2img(unit(control_mode="ControlNet is more important"), cfg_scale=1.0),
    "and": lambda host: host.txt2img(unit(), prompt="a red heart AND a blue square :0.6"),
    "euler a": lambda host: host.txt2img(unit(), sampler_name="Euler a"),
    "dpm++ 2m": lambda host: host.txt2img(unit(), sampler_name="DPM++ 2M", steps=3),
    "hires": lambda host: host.txt2img(unit(), hr_cfg=4.0, **HIRES),
    "region": lambda host: host.txt2img(unit(effective_region_mask=as_base64(MASK.convert("RGB")))),
    "odd": lambda host: host.txt2img(unit(), width=72, height=104),
    "img2img": lambda host: host.img2img(unit()),
    "own picture": lambda host: host.img2img(unit(image=None)),
    "only masked": lambda host: host.img2img(unit(), **MASKED),
    "reference": lambda host: host.txt2img(unit(module="reference_only", model="None", image=as_base64(picture(3)))),
    "adain": lambda host: host.txt2img(unit(module="reference_adain+attn", model="None", image=as_base64(picture(3)))),
    "tile colours": lambda host: host.txt2img(unit(module="tile_colorfix", model="first")),
}


def made(host: Host) -> dict[str, list[NDArray[np.uint8]]]:
    """The pictures of every job, maps too."""
    known = host.app.modules("job_fields").TXT2IMG
    has_cfg = any(field[0] == "hr_cfg" for field in known)
    results: dict[str, list[NDArray[np.uint8]]] = {}
    for name, run in JOBS.items():
        asked = run if has_cfg or name != "hires" else (lambda host: host.txt2img(unit(), **HIRES))
        result = asked(host)
        results[name] = [pixels(result, index) for index in range(len(result.images))]
    return results
