"""A tiler like the family's MultiDiffusion: it cuts each control object's hint as it cuts the latent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.hosts.conftest import SIZE, Host, as_base64, pixels, unit

HALF = SIZE // 16
"""In latent pixels."""


class Tiler:
    """Two halves side by side, in one U-Net call or in two; what the U-Net gives is kept. `deaf` cuts no hints."""

    def __init__(self, at_once: bool, deaf: bool = False) -> None:
        self.at_once, self.deaf = at_once, deaf
        self.outputs: list[Tensor] = []

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
        x, sigma, given = args["input"], args["timestep"], args["c"]
        boxes = [(0, HALF), (HALF, 2 * HALF)]
        result = torch.zeros_like(x)
        for group in [boxes] if self.at_once else [[box] for box in boxes]:
            self._cut(given.get("control_model"), group, len(x))
            own = {**given, "c_crossattn": given["c_crossattn"].repeat(len(group), 1, 1)}
            tiles = torch.cat([x[..., start:end] for start, end in group])
            made = apply_model(tiles, sigma.repeat(len(group)), **own)
            for (start, end), part in zip(group, made.chunk(len(group)), strict=True):
                result[..., start:end] = part
        self.outputs.append(result)
        return result

    def _cut(self, control: Any, boxes: list[tuple[int, int]], rows: int) -> None:
        while control is not None and not self.deaf:
            whole = control.cond_hint_original.clone().to(dtype=torch.float32, device=control.device)
            if whole.shape[-1] != 2 * HALF * 8:
                whole = torch.nn.functional.interpolate(whole, 2 * HALF * 8)
            control.cond_hint = whole
            pieces = [whole.repeat(rows, 1, 1, 1)[..., start * 8 : end * 8] for start, end in boxes]
            control.cond_hint = torch.cat(pieces)
            control = control.previous_controlnet


@contextmanager
def wrapping(host: Host, wrapper: Any) -> Iterator[None]:
    """Whatever the host samples meanwhile, `wrapper` calls the U-Net."""
    host.txt2img()  # some of the family load their checkpoint with the first job
    options = host.app.modules("shared").sd_model.forge_objects_original.unet.model_options
    options["model_function_wrapper"] = wrapper
    try:
        yield
    finally:
        del options["model_function_wrapper"]


@pytest.fixture
def tiled(host: Host) -> Any:
    def run(tiler: Tiler, hint: np.ndarray, *further: dict[str, Any]) -> list[Tensor]:
        with wrapping(host, lambda apply_model, args: tiler(apply_model, args)):  # clones copy objects deeply
            host.txt2img(unit(image=as_base64(Image.fromarray(hint))), *further)
        return tiler.outputs

    return run


@pytest.mark.parametrize("at_once", [True, False], ids=["one call", "two calls"])
@pytest.mark.parametrize("units", [1, 2])
def test_each_tile_follows_its_own_piece(host: Host, tiled: Any, at_once: bool, units: int) -> None:
    if "control_model" not in _given(host):
        pytest.skip("this host does not hand its control objects to whoever wraps the U-Net")
    even = as_base64(Image.new("RGB", (SIZE, SIZE), (90, 90, 90)))
    everywhere = as_base64(Image.new("RGB", (SIZE, SIZE), (255, 255, 255)))
    further = [unit(model="second", image=even, effective_region_mask=everywhere)] if units == 2 else []
    black, white = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE, 3), 255, np.uint8)
    both = np.concatenate([black[:, : SIZE // 2], white[:, SIZE // 2 :]], axis=1)
    first, second, mixed = (tiled(Tiler(at_once), hint, *further)[0] for hint in (black, white, both))
    assert (first - second).abs().max() > 0.01
    torch.testing.assert_close(mixed[..., :HALF], first[..., :HALF])
    torch.testing.assert_close(mixed[..., HALF:], second[..., HALF:])
    objects = host.app.modules("shared").sd_model.forge_objects
    assert objects.unet.controlnet_linked_list is None


def test_tiles_without_their_pieces_stop_the_job(host: Host, tiled: Any) -> None:
    plain = pixels(host.txt2img())
    with pytest.raises(Exception, match="unit 0"):
        tiled(Tiler(at_once=False, deaf=True), np.zeros((SIZE, SIZE, 3), np.uint8))
    assert np.array_equal(pixels(host.txt2img()), plain)


def _given(host: Host) -> set[str]:
    """The names that a wrapper of the U-Net gets."""
    seen: set[str] = set()

    def look(apply_model: Any, args: dict[str, Any]) -> Tensor:
        seen.update(args["c"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    with wrapping(host, look):
        host.txt2img(unit())
    return seen
