"""ControlLLLite in whole U-Nets against kohya's modules before their layers; how its files are known and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.reference import EFFECT
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.layers import layer_inputs
from lib_controlnet.nets.unet import UNetModel
from tests.engine.test_session import FakeGeneration
from tests.families import lllite_files
from tests.families.driving import hooked, on_unet, session_of, settings
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import example, randomise
from tests.nets.sizes import CONFIGS, SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
SMALL_XL = replace(SDXL, transformer_depth=(0, 1, 2), middle_depth=2)


def loaded(folder: Path, weights: dict[str, Tensor]) -> Any:
    save_file(weights, folder / "net.safetensors")
    return load_model(folder / "net.safetensors", CPU, discover())


def unet_of(config: UNetConfig) -> UNetModel:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    return unet


def call(config: UNetConfig, size: tuple[int, int] = (64, 64), images: tuple[int, ...] = (0, 0)) -> Step:
    """A call of a picture of `size` (width, height), or of several."""
    inputs = example(config, size=(size[1] // 8, size[0] // 8))
    rows = [index % 2 for index in range(len(images))]
    given = {key: value[rows] for key, value in inputs.items()}
    is_cond = tuple(index < len(images) // 2 for index in range(len(images)))
    return Step(given["x"], given["timesteps"], given["context"], given.get("y"), is_cond, images, 0.5)


def plain(unet: UNetModel, now: Step) -> Tensor:
    with torch.no_grad():
        return unet(now.x, now.timesteps, now.context, now.y)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(
    ("config", "layers", "size"),
    [
        (SD1, lllite_files.LAYERS, (64, 64)),
        (SD1, lllite_files.LAYERS, (200, 136)),
        (SMALL_XL, lllite_files.LAYERS, (64, 64)),
        (SMALL_XL, lllite_files.LAYERS, (200, 136)),
        (SDXL, lllite_files.LAYERS, (64, 64)),
        (SD1, ("attn2.to_out.0", "attn1.to_out.0"), (64, 64)),
        (SD1, ("in_layers.2", "out_layers.3", "0.op"), (64, 96)),
        (SMALL_XL, ("in_layers.2", "attn1.to_v"), (64, 96)),
    ],
)
def test_a_unet_with_modules_is_kohyas(
    tmp_path: Path, config: UNetConfig, layers: tuple[str, ...], size: tuple[int, int]
) -> None:
    unet, now, hint = unet_of(config), call(config, size), picture(*size)
    made = lllite_files.modules(config, layers)
    model = loaded(tmp_path, lllite_files.weights(made))
    model.check(BaseModel(config, "tiny"))
    ours = hooked(unet, now, model.bind([hint], settings(config)), size=size, weight=0.7)
    with lllite_files.acting(unet, made, hint.image, 0.7):
        theirs = plain(unet, now)
    assert error(plain(unet, now), theirs) > 0.005
    assert error(ours, theirs) < 3e-6


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layers_of_a_unet_are_known_by_its_sizes(config: UNetConfig) -> None:
    with torch.device("meta"):
        unet = UNetModel(config)
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    other = ("emb_layers", ".ff.", ".proj_", "time_embed", "label_emb")
    known = {
        name: layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
        for name, layer in layers.items()
        if not name.startswith("out.") and not any(part in name for part in other)
    }
    assert {name: layer.channels for name, layer in layer_inputs(config).items()} == known


def test_each_picture_of_a_batch_has_its_own(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1, images=(0, 1, 0, 1))
    model = loaded(tmp_path, lllite_files.weights(lllite_files.modules(SD1)))
    hints = [picture(64, 64), Hint(torch.rand(1, 3, 64, 64), None, picture(64, 64).display)]
    both = hooked(unet, now, model.bind(hints, settings()))
    for image, hint in enumerate(hints):
        rows = [row for row in range(4) if now.images[row] == image]
        part = replace(now.select(rows), images=(0, 0))
        assert error(both[rows], hooked(unet, part, model.bind([hint], settings()))) < 1e-5


def test_a_region_is_kept_and_weights_of_nothing_change_nothing(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1)
    bound = loaded(tmp_path, lllite_files.weights(lllite_files.modules(SD1))).bind([picture(64, 64)], settings())
    none = plain(unet, now)
    assert torch.equal(hooked(unet, now, bound, weight=0.0), none)
    assert torch.equal(hooked(unet, now, bound, guidance_end=0.3), none)
    assert torch.equal(hooked(unet, now, bound, region=torch.zeros(1, 1, 64, 64)), none)
    whole = hooked(unet, now, bound)
    assert error(hooked(unet, now, bound, region=torch.ones(1, 1, 64, 64)), whole) < 1e-6
    half = torch.zeros(1, 1, 64, 64)
    half[..., :32] = 1.0
    assert error(hooked(unet, now, bound, region=half), whole) > 0.01
    assert error(hooked(unet, now, bound, region=half), none) > 0.01


def test_what_the_picture_gives_is_computed_once_a_pass(tmp_path: Path) -> None:
    unet, now = unet_of(SD1), call(SD1)
    model = loaded(tmp_path, lllite_files.weights(lllite_files.modules(SD1)))
    counts: list[int] = []
    for place in model.net.places:
        model.net.at(place).conditioning1.register_forward_hook(lambda *_: counts.append(1))
    bound = model.bind([picture(64, 64)], settings())
    first = hooked(unet, now, bound)
    counts.clear()
    with torch.no_grad(), on_unet(unet, session_of(bound), now):
        steps = [unet(now.x, now.timesteps, now.context, now.y) for _ in range(3)]
    assert len(counts) == len(model.net.places)
    assert all(torch.equal(step, first) for step in steps)


@pytest.mark.parametrize(("config", "other"), [(SD1, SMALL_XL), (SMALL_XL, SD1), (SD1, CONFIGS["SD2"])])
def test_which_checkpoints_fit_is_known_before_loading(tmp_path: Path, config: UNetConfig, other: UNetConfig) -> None:
    model = loaded(tmp_path, lllite_files.weights(lllite_files.modules(config)))
    facts = FactReader(discover()).read(tmp_path / "net.safetensors")
    assert facts.family == "lllite"
    assert facts.kind == "a ControlLLLite model"
    assert facts.mismatch(BaseModel(config, "tiny")) == ""
    assert facts.mismatch(BaseModel(other, "tiny"))
    model.check(BaseModel(config, "tiny"))
    with pytest.raises(BaseModelError, match="cannot control"):
        model.check(BaseModel(other, "tiny"))


KEY = "lllite_unet_middle_block_1_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(f"{KEY}.up.0.bias"), f"missing: {KEY}.up.0.bias"),
        (lambda w: w.pop(f"{KEY}.down.0.weight"), f"no {KEY}.down.0.weight"),
        (lambda w: w.update({f"{KEY}.extra": torch.ones(1)}), f"not part of the network: {KEY}.extra"),
        (lambda w: w.update({"other.weight": torch.ones(1)}), "not part of the network: other.weight"),
        (lambda w: w.update({f"{KEY}.mid.0.weight": torch.ones(5, 5)}), "of another shape"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    weights = lllite_files.weights(lllite_files.modules(SD1))
    change(weights)
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, weights)


def test_names_of_diffusers_are_understood(tmp_path: Path) -> None:
    weights = lllite_files.weights(lllite_files.modules(SD1))
    renamed = {
        key.replace("input_blocks_4_1", "down_blocks_1_attentions_0").replace(
            "middle_block_1", "mid_block_attentions_0"
        ): v
        for key, v in weights.items()
    }
    assert renamed.keys() != weights.keys()
    unet, now = unet_of(SD1), call(SD1)
    outputs = [
        hooked(unet, now, loaded(tmp_path, each).bind([picture(64, 64)], settings())) for each in (weights, renamed)
    ]
    assert torch.equal(*outputs)


def test_a_module_for_the_prompts_keys_is_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path, lllite_files.weights(lllite_files.modules(SD1, ("attn2.to_k",))))
    with pytest.raises(BaseModelError, match="gets the prompt and no picture"):
        model.check(BaseModel(SD1, "tiny"))


def _reference(mode: ControlMode, fidelity: float) -> Any:
    options = {"attention": True, "adain": False}
    given = settings(SD1, mode=mode, params=(fidelity,), options=options, checkpoint=latents)
    return EFFECT.bind([picture(64, 64)], given)


def latents() -> Checkpoint:
    def encode(pixels: Tensor) -> Tensor:
        small = functional.avg_pool2d(pixels * 2 - 1, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)

    return Checkpoint(torch.linspace(0.99, 0.01, 1000), False, encode, 1)


@pytest.mark.parametrize("how", ["whole", "region", "rows"])
def test_beside_a_reference_it_acts_on_the_pictures_own_tokens(tmp_path: Path, how: str) -> None:
    """Where an attention looks at a reference it computes again for some rows, and sees more than the picture."""
    unet, now = unet_of(SD1), call(SD1, images=(0, 1, 0, 1))
    bound = loaded(tmp_path, lllite_files.weights(lllite_files.modules(SD1))).bind([picture(64, 64)], settings())
    given: dict[str, Any] = {"region": torch.ones(1, 1, 64, 64)} if how == "region" else {}
    if how == "rows":
        given = {"generation": replace(FakeGeneration(), unit_per_image=True)}
    alone = hooked(unet, now, bound, *([_reference(ControlMode.prompt, 0.0)] if how == "rows" else []), **given)
    strict = hooked(unet, now, bound, _reference(ControlMode.control, 0.5), **given)
    mixed = hooked(unet, now, bound, _reference(ControlMode.balanced, 0.5), **given)
    assert torch.isfinite(mixed).all()
    if how == "rows":  # the first picture is the modules', the second the reference's
        assert error(mixed[[0, 2]], alone[[0, 2]]) < 1e-5
        assert error(mixed[3:], alone[3:]) > 1e-4
        return
    assert error(strict[2:], alone[2:]) < 1e-5, "the negative prompt's rows do not look at the reference"
    assert error(strict[:2], alone[:2]) > 1e-3
    assert error(mixed[2:], alone[2:]) > 1e-4
