"""A headless host with a tiny checkpoint and the tracing extension for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from standalone import App, boot
from tests.standalone import tiny_checkpoint, tracing_extension

SIZE = 64


class Traced:
    """A host whose jobs are small, and what its extension saw."""

    def __init__(self, app: App) -> None:
        self.app = app

    @property
    def script(self) -> Any:
        """Globals of the tracing script as it is loaded now."""
        return self.app.modules("scripts").scripts_txt2img.alwayson_scripts[0].process.__globals__

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return self.script["events"]

    def names(self, *without: str) -> list[str]:
        return [name for name, _ in self.events if name not in without]

    def details(self, name: str) -> list[dict[str, Any]]:
        return [details for event, details in self.events if event == name]

    def forget(self) -> None:
        self.events.clear()
        self.script["raise_in"].clear()
        self.script["at_event"].clear()
        self.app.modules("errors").exception_records.clear()

    def txt2img(self, **settings: Any) -> Any:
        return self.app.txt2img({"Tracing": [True]}, **{**DEFAULTS, **settings})

    def img2img(self, **settings: Any) -> Any:
        defaults = {**DEFAULTS, "init_images": [picture()], "denoising_strength": 0.6}
        return self.app.img2img({"Tracing": [True]}, **{**defaults, **settings})

    def options(self, **values: Any) -> None:
        for key, value in values.items():
            self.app.modules("shared").opts.set(key, value)


DEFAULTS: dict[str, Any] = {
    "prompt": "a red heart",
    "negative_prompt": "blue",
    "seed": 5,
    "steps": 2,
    "width": SIZE,
    "height": SIZE,
    "cfg_scale": 4.0,
    "sampler_name": "Euler",
}


def picture(width: int = SIZE, height: int = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8))


def pixels(processed: Any, index: int = 0) -> np.ndarray:
    return np.asarray(processed.images[index].convert("RGB"))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "first" and "second" of one structure, "wide" of another and "painting", which takes a mask."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(("first", "second")):
        tiny_checkpoint.write(folder, name, seed=seed)
    tiny_checkpoint.write(folder, "wide", seed=2, width=64)
    tiny_checkpoint.write(folder, "painting", seed=3, in_channels=9)
    return folder


@pytest.fixture(scope="module")
def app(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    extension = tracing_extension.write(tmp_path_factory.mktemp("extensions") / "Tracing-Extension")
    data = tmp_path_factory.mktemp("data")
    argv = ["--ckpt-dir", str(checkpoints)]
    first = checkpoints / "first.safetensors"
    settings = {"data_dir": data, "extension_dirs": [extension], "argv": argv, "api": False, "ui": False}
    with boot(first, nested=True, **settings) as host:  # other tests of this session may have a host of their own
        yield host


@pytest.fixture
def host(app: App) -> Iterator[Traced]:
    """The host with its settings, model and extension as after the start."""
    shared = app.modules("shared")
    traced = Traced(app)
    saved = dict(shared.opts.data)
    app.modules("sd_models").reload_model_weights()
    traced.forget()
    yield traced
    shared.opts.data.clear()
    shared.opts.data.update(saved)
    shared.state.interrupted = shared.state.skipped = shared.state.stopping_generation = False
    traced.forget()
