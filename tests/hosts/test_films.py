"""A film of AnimateDiff, a reproduction of its calls: a map for each frame, and windows of frames in turn.

Without motion modules every frame is what a job of its own makes of its seed and map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from .conftest import Host, pixels, unit
from .test_company import latents
from .test_others import slice_of

FRAMES, WINDOW = 4, 2


class Film:
    """Its unit fields, its one argument, and its denoiser."""

    def __init__(self, host: Host, folder: str, window: int, enabled: bool) -> None:
        self.host, self.folder, self.window, self.enabled = host, folder, window, enabled
        self.windows: list[int] = []

    def before_process(self, p: Any, script: Any) -> None:
        p.script_args = [*p.script_args, SimpleNamespace(enable=self.enabled)]
        script.args_from, script.args_to = len(p.script_args) - 1, len(p.script_args)
        if not self.enabled:
            return
        p.batch_size = FRAMES
        for item in slice_of(p):
            if item.enabled:
                item.input_mode = item.input_mode.__class__.BATCH
                item.batch_images, item.animatediff_batch = self.folder, True
                item.batch_modifiers = [lambda files, _p: files[:FRAMES]]

    def on_denoiser(self, params: Any) -> None:
        network = params.denoiser.inner_model
        if self.enabled and params.denoiser.step == 0 and getattr(network, "original_forward", None) is None:
            network.original_forward = network.forward
            network.forward = MethodType(self.forward, network)

    def forward(self, network: Any, x: Any, sigma: Any, cond: Any) -> Any:
        out, both = torch.zeros_like(x), self.host.app.modules("shared").opts.batch_cond_uncond
        for start in range(0, FRAMES, self.window):
            context = list(range(start, start + self.window))
            rows = context + [frame + FRAMES for frame in context] if both else context
            self._select(rows)
            parts = {key: [value[0][rows]] for key, value in cond.items()}
            out[rows] = network.original_forward(x[rows], sigma[rows], cond=parts)
            self._restore(rows)
            self.windows.append(len(rows))
        return out

    def _params(self) -> Any:
        runner = self.host.app.modules("scripts").scripts_txt2img
        script = next(one for one in runner.alwayson_scripts if one.title().lower() == "controlnet")
        return script.latest_network.control_params if script.latest_network else ()

    def _select(self, rows: list[int]) -> None:
        for control in self._params():
            if control.hint_cond.shape[0] > len(rows):
                control.hint_cond_backup = control.hint_cond
                control.hint_cond = control.hint_cond[rows]
            control.hint_cond = control.hint_cond.to(device="cpu")

    def _restore(self, rows: list[int]) -> None:
        for control in self._params():
            if getattr(control, "hint_cond_backup", None) is not None:
                control.hint_cond_backup[rows] = control.hint_cond.to(device="cpu")
                control.hint_cond = control.hint_cond_backup


@contextmanager
def animated(host: Host, folder: str, window: int = WINDOW, enabled: bool = True) -> Iterator[Film]:
    scripts, callbacks = host.app.modules("scripts"), host.app.modules("script_callbacks")
    film = Film(host, folder, window, enabled)

    class AnimateDiff(scripts.Script):
        args_from = args_to = 0

        def title(self) -> str:
            return "AnimateDiff"

        def before_process(self, p: Any, *_args: Any) -> None:
            film.before_process(p, self)

    runner, script = scripts.scripts_txt2img, AnimateDiff()
    runner.alwayson_scripts.append(script)  # ours comes first, as in folders that sort so
    runner.callback_map.clear()
    callbacks.on_cfg_denoiser(film.on_denoiser)
    try:
        yield film
    finally:
        callbacks.remove_callbacks_for_function(film.on_denoiser)
        runner.alwayson_scripts.remove(script)
        runner.callback_map.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for frame in range(FRAMES + 1):
        source(frame).save(tmp_path / f"{frame + 7}.png")  # 7, 8, 9, 10: in the order of numbers
    return tmp_path


def source(frame: int) -> Image.Image:
    """Blocks of a latent place each: maps that differ in what they do."""
    blocks = np.random.default_rng(frame).integers(0, 2, (8, 8, 3), np.uint8) * 255
    return Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))


def alone(host: Host, frame: int, drawn: Image.Image) -> np.ndarray:
    return latents(host, unit(image=drawn), seed=11 + frame)[0]


def check(host: Host, made: np.ndarray, frame: int, drawn: Image.Image, other: Image.Image) -> None:
    """A frame is what a job of its own makes of the map, and not of another one."""
    own = alone(host, frame, drawn)
    assert np.abs(made[frame] - own).max() < 1e-3  # of numbers up to 25, in batches of other sizes
    assert np.abs(own - alone(host, frame, other)).max() > 1e-2


@pytest.mark.parametrize(("window", "both"), [(WINDOW, True), (WINDOW, False), (FRAMES, True)])
def test_each_frame_has_its_map(host: Host, folder: Path, window: int, both: bool) -> None:
    opts = host.app.modules("shared").opts
    opts.batch_cond_uncond, before = both, opts.batch_cond_uncond
    try:
        with animated(host, str(folder), window) as film:
            made = latents(host, unit(image=None))
    finally:
        opts.batch_cond_uncond = before
    assert set(film.windows) == {window * (2 if both else 1)}
    for frame in range(FRAMES):
        check(host, made, frame, source(frame), source((frame + 1) % FRAMES))


def test_between_key_frames_the_map_is_black(host: Host, folder: Path) -> None:
    with animated(host, f"{folder}\nkeyframe:0,3"):
        made = latents(host, unit(image=None))
    black = Image.new("RGB", (64, 64))
    first, last = source(0), source(1)
    for frame, (drawn, other) in enumerate([(first, black), (black, first), (black, last), (last, black)]):
        check(host, made, frame, drawn, other)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("\nkeyframe:0,9", "the key frames 0, 9 of 4"),
        ("\nkeyframe:0,a", "these are no key frames"),
        ("/nowhere", "cannot be read"),
        ("\nmask:/nowhere", "/nowhere"),
    ],
)
def test_pictures_that_are_not_the_frames_stop_the_job(host: Host, folder: Path, lines: str, words: str) -> None:
    with animated(host, f"{folder}{lines}"), pytest.raises(Exception, match=words):
        host.txt2img(unit(image=None))


def test_fewer_pictures_than_frames_stop_the_job(host: Host, folder: Path) -> None:
    (folder / "8.png").unlink()
    (folder / "9.png").unlink()
    with animated(host, str(folder)), pytest.raises(Exception, match="3 pictures"):
        host.txt2img(unit(image=None))


def test_a_folder_in_a_request_is_refused(host: Host, folder: Path) -> None:
    with pytest.raises(Exception, match="animatediff_batch"):
        host.txt2img(unit(image=None, batch_images=str(folder), animatediff_batch=True))


def test_merely_installed_it_changes_nothing(host: Host, folder: Path) -> None:
    wanted = pixels(host.txt2img(unit()))
    with animated(host, str(folder), enabled=False):
        assert np.array_equal(pixels(host.txt2img(unit())), wanted)
