"""BrushNet in whole U-Nets against diffusers' blocks wired after the published fork; how its files are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError
from lib_controlnet.core.hints import Hint
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from tests.families.brushnet_reference import ReferenceBrushNet, together
from tests.families.driving import hooked, settings
from tests.families.test_lllite import call, error, latents, plain, unet_of
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import randomise
from tests.nets.sizes import SD1, SD2, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
SMALL_XL = replace(SDXL, transformer_depth=(0, 1, 2), middle_depth=2)


def reference(config: UNetConfig) -> ReferenceBrushNet:
    net = ReferenceBrushNet(config)
    randomise(net, seed=8)
    return net


def loaded(folder: Path, weights: dict[str, Tensor]) -> Any:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "net.safetensors")
    return load_model(folder / "net.safetensors", CPU, discover())


def holed(width: int, height: int, seed: int = 3) -> Hint:
    """A picture of which the middle is to be painted."""
    shown = picture(width, height)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 4 : height // 2, width // 8 * seed :] = 1.0
    return Hint(shown.image * (1 - mask) - mask, mask, shown.display)


@pytest.mark.parametrize(
    ("config", "size"), [(SD1, (64, 64)), (SD2, (64, 128)), (SMALL_XL, (64, 64)), (SMALL_XL, (96, 160))]
)
@torch.no_grad()
def test_a_unet_with_the_network_is_the_forks(tmp_path: Path, config: UNetConfig, size: tuple[int, int]) -> None:
    unet, now, hint, net = unet_of(config), call(config, size), holed(*size), reference(config)
    assert hint.mask is not None
    kept = 1 - functional.interpolate(hint.mask, now.x.shape[2:], mode="nearest")
    known = torch.cat([latents().encode(hint.image.clamp(min=0)), kept], dim=1)
    added = net(torch.cat([now.x, known.expand(2, -1, -1, -1)], dim=1), now.timesteps, now.y)
    inputs = {"x": now.x, "timesteps": now.timesteps, "context": now.context}
    theirs = together(unet, inputs if now.y is None else {**inputs, "y": now.y}, added, 0.6)
    model = loaded(tmp_path, dict(net.state_dict()))
    model.check(BaseModel(config, "tiny"))
    ours = hooked(unet, now, model.bind([hint], settings(config, checkpoint=latents)), size=size, weight=0.6)
    assert error(plain(unet, now), theirs) > 0.05
    assert error(ours, theirs) < 1e-5


def test_odd_sizes_regions_and_nothing(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1, (200, 136))
    model = loaded(tmp_path, dict(reference(SD1).state_dict()))
    bound, none = model.bind([holed(200, 136)], settings(checkpoint=latents)), plain(unet, now)
    given: dict[str, Any] = {"size": (200, 136)}
    whole = hooked(unet, now, bound, **given)
    assert torch.isfinite(whole).all()
    assert error(whole, none) > 0.01
    assert torch.equal(hooked(unet, now, bound, weight=0.0, **given), none)
    assert torch.equal(hooked(unet, now, bound, region=torch.zeros(1, 1, 136, 200), **given), none)
    assert error(hooked(unet, now, bound, region=torch.ones(1, 1, 136, 200), **given), whole) < 1e-6


def test_each_picture_of_a_batch_has_its_own(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1, images=(0, 1, 0, 1))
    model = loaded(tmp_path, dict(reference(SD1).state_dict()))
    hints, given = [holed(64, 64, 2), holed(64, 64, 5)], settings(checkpoint=latents)
    both = hooked(unet, now, model.bind(hints, given))
    for image, hint in enumerate(hints):
        rows = [row for row in range(4) if now.images[row] == image]
        part = replace(now.select(rows), images=(0, 0))
        assert error(both[rows], hooked(unet, part, model.bind([hint], given))) < 1e-5
    assert error(both[:1], both[1:2]) > 1e-3


def test_a_map_without_a_mask_is_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(reference(SD1).state_dict()))
    with pytest.raises(PreprocessorError, match="inpaint_global_harmonious"):
        model.bind([picture(64, 64)], settings(checkpoint=latents))


@pytest.mark.parametrize(("config", "other"), [(SD1, SMALL_XL), (SMALL_XL, SD1)])
def test_which_checkpoints_fit_is_known_before_loading(tmp_path: Path, config: UNetConfig, other: UNetConfig) -> None:
    model = loaded(tmp_path, dict(reference(config).state_dict()))
    facts = FactReader(discover()).read(tmp_path / "net.safetensors")
    assert (facts.family, facts.kind) == ("brushnet", "a BrushNet model")
    assert facts.mismatch(BaseModel(config, "tiny")) == ""
    assert facts.mismatch(BaseModel(other, "tiny"))
    with pytest.raises(BaseModelError, match="cannot control"):
        model.check(BaseModel(other, "tiny"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("brushnet_up_blocks.3.bias"), r"missing: up_zero_convs\.3\.0\.bias"),
        (lambda w: w.update(extra=torch.ones(1)), "not part of the network: extra"),
        (lambda w: w.update({"brushnet_mid_block.bias": torch.ones(5)}), "of another shape"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    weights = dict(reference(SD1).state_dict())
    change(weights)
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, weights)
