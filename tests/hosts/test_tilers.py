"""Tilers of other extensions: they cut each unit's hint as they cut the latent. A reproduction of their calls."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import Host, pixels, unit
from .test_jobs import difference

TILE = 4
"""Of the 8 x 8 latent; four tiles that do not overlap."""


def boxes() -> list[tuple[int, int]]:
    return [(top, left) for top in (0, TILE) for left in (0, TILE)]


class Tiler:
    """As Tiled Diffusion: prepared when a sampler is made, before the pass begins; wraps the denoiser's network."""

    leaves = False
    """Whether the last piece stays where it was set until a call that is not tiled, as Tiled Diffusion has it."""

    def __init__(self, host: Host, batch: int, on_cpu: bool) -> None:
        self.host, self.batch, self.on_cpu = host, batch, on_cpu
        self.groups = [boxes()[start : start + batch] for start in range(0, 4, batch)]
        self.params: list[Any] | None = None
        self.whole: list[Any] = []
        self.pieces: list[list[Any]] = []
        self.calls = 0

    def script(self) -> Any:
        importlib.import_module("scripts.cldm").ControlNet  # noqa: B018 - how it is told that control is there
        runner = self.host.app.modules("scripts").scripts_txt2img
        found = (script for script in runner.alwayson_scripts if hasattr(script, "latest_network"))
        return next(script for script in found if script.title().lower() == "controlnet")

    def prepare(self) -> None:
        network = self.script().latest_network
        if network is None or not hasattr(network, "control_params"):
            return
        self.params = network.control_params
        self.whole = [param.hint_cond for param in network.control_params]
        for hint in self.whole:
            tiles = [[self._cut(hint, top, left) for top, left in group] for group in self.groups]
            self.pieces.append([torch.cat(group) for group in tiles])

    def _cut(self, hint: Any, top: int, left: int) -> Any:
        piece = hint[:, :, top * 8 : (top + TILE) * 8, left * 8 : (left + TILE) * 8]
        return piece.cpu() if self.on_cpu else piece

    def forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, sigma: Any, cond: Any, **kwargs: Any) -> Any:
            if x.shape[-1] != 2 * TILE:  # the hires pass is not tiled
                self._put_back()
                return original(x, sigma, cond=cond, **kwargs)
            out = torch.zeros_like(x)
            rows = x.shape[0]
            for number, group in enumerate(self.groups):
                parts = torch.cat([x[:, :, top : top + TILE, left : left + TILE] for top, left in group])
                for index, param in enumerate(self.params or []):
                    pieces = self.pieces[index][number]
                    param.hint_cond = torch.cat([torch.cat([piece[None]] * rows) for piece in pieces])
                conds = {key: [torch.cat([value[0]] * len(group))] for key, value in cond.items()}
                made = original(parts, torch.cat([sigma] * len(group)), cond=conds, **kwargs)
                for place, (top, left) in enumerate(group):
                    part = made[place * rows : (place + 1) * rows]
                    out[:, :, top : top + TILE, left : left + TILE] = part
            self.calls += 1
            if not self.leaves:
                self._put_back()
            return out

        return call

    def _put_back(self) -> None:
        for param, hint in zip(self.params or [], self.whole, strict=False):
            param.hint_cond = hint


@contextmanager
def tiled(host: Host, batch: int = 1, on_cpu: bool = False) -> Iterator[Tiler]:
    samplers = host.app.modules("sd_samplers")
    original = samplers.create_sampler
    tiler = Tiler(host, batch, on_cpu)

    def create_sampler(name: str, model: Any) -> Any:
        sampler = original(name, model)
        tiler.__init__(host, batch, on_cpu)
        tiler.prepare()
        network = sampler.model_wrap_cfg.inner_model
        network.forward = tiler.forward(network.forward)
        return sampler

    samplers.create_sampler = create_sampler
    try:
        yield tiler
    finally:
        samplers.create_sampler = original


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("on_cpu", [False, True])
def test_each_tile_is_controlled_by_its_piece(host: Host, batch: int, on_cpu: bool) -> None:
    """Every way of batching tiles gives the same picture, and none of them the one without control."""
    with tiled(host) as tiler:
        plain = pixels(host.txt2img())
        one = pixels(host.txt2img(unit()))
        assert tiler.calls
    with tiled(host, batch, on_cpu):
        assert difference(pixels(host.txt2img(unit())), one) <= 1
    assert difference(one, plain) > 3


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_network_gets_the_pieces_of_the_tiles_it_draws(
    host: Host, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    map_ = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    bound: list[torch.Tensor] = []
    with tiled(host, batch) as tiler:
        prepare = tiler.prepare

        def prepare_and_record() -> None:
            prepare()
            model = (tiler.params or [])[0].control_model.control_model.model
            bind = model.bind

            def record(hints: Any, options: Any) -> Any:
                bound.extend(hint.image for hint in hints)
                return bind(hints, options)

            monkeypatch.setattr(model, "bind", record)

        tiler.prepare = prepare_and_record  # type: ignore[method-assign]
        host.txt2img(unit(image={"image": map_}), cfg_scale=1.0)
    pieces = torch.cat([image.cpu() for image in bound if image.shape[-1] == TILE * 8])
    expected = [map_[top * 8 : top * 8 + 32, left * 8 : left * 8 + 32] for top, left in boxes()] * 2
    assert np.array_equal((pieces.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8), np.stack(expected))


def test_two_units_and_a_region(host: Host) -> None:
    region = np.zeros((64, 64), np.uint8)
    region[:, 32:] = 255
    with tiled(host) as tiler:
        plain = pixels(host.txt2img())
        controlled = pixels(host.txt2img(unit(effective_region_mask=region), unit(model="second", weight=0.5)))
        half = pixels(host.txt2img(unit(effective_region_mask=region)))
        assert tiler.params is not None
        assert tiler.whole[0].shape[1] == 4, "the region is cut with the hint"
    assert difference(controlled, half) > 1
    moved = np.abs(half.astype(int) - plain).max(axis=2)
    assert moved[:, 40:].mean() > 3 * max(moved[:, :24].mean(), 0.01)


def test_hires_cuts_the_hint_of_its_own_pass(host: Host) -> None:
    seen: list[tuple[int, ...]] = []
    samplers = host.app.modules("sd_samplers")
    original = samplers.create_sampler

    def create_sampler(name: str, model: Any) -> Any:
        sampler = original(name, model)
        network = next(s for s in host.app.modules("scripts").scripts_txt2img.alwayson_scripts).latest_network
        seen.append(tuple(network.control_params[0].hint_cond.shape))
        return sampler

    samplers.create_sampler = create_sampler
    try:
        host.txt2img(unit(), enable_hr=True, hr_scale=2.0, hr_upscaler="Latent", denoising_strength=0.6)
    finally:
        samplers.create_sampler = original
    assert seen == [(1, 3, 64, 64), (1, 3, 128, 128)]


def test_a_piece_that_a_tiler_leaves_is_not_cut_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sampler, of the hires pass or of the next batch, is made while the last piece is still set."""
    hires: dict[str, Any] = {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.6}
    with tiled(host) as tiler:
        expected = pixels(host.txt2img(unit(), **hires))
    monkeypatch.setattr(Tiler, "leaves", True)
    with tiled(host) as tiler:
        assert difference(pixels(host.txt2img(unit(), **hires)), expected) <= 1
        assert tuple(tiler.whole[0].shape) == (1, 3, 128, 128)
        host.txt2img(unit(), n_iter=2)
        assert tuple(tiler.whole[0].shape) == (1, 3, 64, 64)


def test_a_whole_map_of_other_content_is_used(host: Host) -> None:
    """Others set an interpolated hint of the same size."""
    script = next(s for s in host.app.modules("scripts").scripts_txt2img.alwayson_scripts)
    black = pixels(host.txt2img(unit(image={"image": np.zeros((64, 64, 3), np.uint8)})))
    callbacks = host.app.modules("script_callbacks")

    def darken(_params: Any) -> None:
        for param in script.latest_network.control_params:
            param.hint_cond = torch.zeros_like(param.hint_cond)

    callbacks.on_cfg_denoiser(darken)
    try:
        assert np.array_equal(pixels(host.txt2img(unit())), black)
    finally:
        callbacks.remove_callbacks_for_function(darken)
    assert not np.array_equal(pixels(host.txt2img(unit())), black)


def test_the_view_of_what_is_under_way(host: Host) -> None:
    script = next(s for s in host.app.modules("scripts").scripts_txt2img.alwayson_scripts)
    assert script.latest_network is None
    hook, cldm = (importlib.import_module(f"scripts.{name}") for name in ("hook", "cldm"))
    callbacks, seen = host.app.modules("script_callbacks"), []

    def look(_params: Any) -> None:
        network = script.latest_network
        assert network is script.latest_network
        seen.append(network)
        (param,) = network.control_params
        assert isinstance(network, hook.UnetHook)
        assert isinstance(param.control_model.control_model, cldm.ControlNet)
        assert param.control_model_type not in [hook.ControlModelType.IPAdapter, hook.ControlModelType.Controlllite]
        assert (param.weight, param.start_guidance_percent, param.stop_guidance_percent) == (0.75, 0.0, 0.9)
        assert param.hr_hint_cond is None
        assert not param.guidance_stopped
        param.hint_cond = param.hint_cond.to("cpu")  # AnimateDiff
        param.hint_cond_backup = param.hint_cond
        with pytest.raises(AttributeError):
            param.weight = 2.0
        with pytest.raises(TypeError, match="tensor"):
            param.hint_cond = None

    alone = pixels(host.txt2img(unit(weight=0.75, guidance_end=0.9)))
    callbacks.on_cfg_denoiser(look)
    try:
        assert np.array_equal(pixels(host.txt2img(unit(weight=0.75, guidance_end=0.9))), alone)
    finally:
        callbacks.remove_callbacks_for_function(look)
    assert len(seen) == 2
    assert script.latest_network is None
