"""The embedded host with a tiny random checkpoint, a second one, and random ControlNets for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from standalone import App, boot
from tests.engine.tiny import SDXL_SHAPED, randomise, tiny_controlnet
from tests.standalone import tiny_checkpoint

SIZE = 64


class Host:
    """Jobs of 64 x 64 pixels and two steps, unless told otherwise."""

    def __init__(self, app: App, checkpoints: list[Path]) -> None:
        self.app = app
        self.checkpoints = checkpoints

    def txt2img(self, *units: Any, **settings: Any) -> Any:
        return self._run(self.app.txt2img, units, settings)

    def img2img(self, *units: Any, **settings: Any) -> Any:
        return self._run(self.app.img2img, units, {"init_images": [picture(7)], "denoising_strength": 0.6, **settings})

    @staticmethod
    def _run(run: Any, units: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        defaults = {
            "prompt": "a red heart",
            "seed": 11,
            "steps": 2,
            "width": SIZE,
            "height": SIZE,
            "cfg_scale": 4.0,
            "sampler_name": "Euler",
        }
        return run({"ControlNet": units} if units else {}, **{**defaults, **settings})

    def load(self, name: str) -> None:
        """Makes another checkpoint the current one, as the settings do."""
        models, shared = self.app.modules("sd_models"), self.app.modules("shared")
        info = models.get_closet_checkpoint_match(name)
        shared.opts.data["sd_model_checkpoint"] = info.title
        models.reload_model_weights(info=info)

    def unet(self) -> Any:
        return self.app.modules("shared").sd_model.model.diffusion_model


def picture(seed: int = 1, size: int = SIZE) -> Image.Image:
    """Noise of one colour scheme; every seed another."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def as_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def unit(**fields: Any) -> dict[str, Any]:
    """A unit as API clients send it."""
    return {"enabled": True, "model": "first", "module": "none", "image": as_base64(picture()), **fields}


def pixels(processed: Any, index: int = 0) -> np.ndarray:
    return np.asarray(processed.images[index].convert("RGB"))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints and, below `ControlNet`, control models."""
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(("one", "two")):
        tiny_checkpoint.write(folder / "Stable-diffusion", name, seed=seed)
    tiny_checkpoint.write(folder / "Stable-diffusion", "wide", seed=3, width=64)
    tiny_checkpoint.write(folder / "Stable-diffusion", "inpainting", seed=4, in_channels=9)
    models = folder / "ControlNet"
    models.mkdir()
    for seed, name in ((5, "first"), (6, "second")):
        config = ControlNetConfig(tiny_checkpoint.unet_config(), 3, (8, 8, 16, 16))
        weights = randomise(ControlNet(config), seed).state_dict()
        weights["input_hint_block.14.weight"] *= 20  # so that what the hint shows outweighs that there is one
        save_file(weights, models / f"{name}.safetensors")
    save_file(tiny_controlnet(SDXL_SHAPED).state_dict(), models / "xl.safetensors")
    save_file({"lora_unet_down_blocks_0.lora_up.weight": torch.rand(8, 8)}, models / "lora.safetensors")
    (models / "cut.safetensors").write_bytes((models / "first.safetensors").read_bytes()[:-5000])
    return folder


@pytest.fixture(scope="package")  # one host at a time in a process: other folders' tests start their own
def host(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    checkpoints = [files / "Stable-diffusion" / f"{name}.safetensors" for name in ("one", "two", "wide")]
    argv = ["--ckpt-dir", str(files / "Stable-diffusion")]
    data = tmp_path_factory.mktemp("data")
    with boot(checkpoints[0], files / "ControlNet", data_dir=data, api=False, ui=False, argv=argv) as app:
        yield Host(app, checkpoints)
