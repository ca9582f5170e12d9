"""Control-LoRAs against diffusers' ControlNet with weights merged by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError, ModelFileError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import ControlNetConfig, UNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from tests.families.driving import settings
from tests.nets.ldm_oracle import diffusers_controlnet, example, for_diffusers, randomise, with_sizes
from tests.nets.sizes import SD1, SD2, SDXL

WIDTHS = (8, 16, 24, 32)
RANK = 3


def unet(config: UNetConfig, seed: int = 2) -> UNetModel:
    net = UNetModel(config)
    randomise(net, seed)
    return net


def control_lora(config: UNetConfig, base: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(a file, the ControlNet that it means): every matrix and kernel in factors, and of the norms and biases that it
    shares with the base every other one left out, which then is the base's."""
    net = ControlNet(ControlNetConfig(config, hint_widths=WIDTHS))
    randomise(net, seed=5)
    file: dict[str, Tensor] = {"lora_controlnet": torch.tensor([])}
    meant: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(6)
    for place, (key, value) in enumerate(net.state_dict().items()):
        if key not in base:
            file[key] = meant[key] = value
        elif value.ndim == 1:
            meant[key] = base[key]
            if place % 2:
                file[key] = meant[key] = value
        else:
            up = torch.randn(value.shape[0], RANK, generator=generator)
            down = torch.randn(RANK, value[0].numel(), generator=generator) * 0.02
            module = key.removesuffix(".weight")
            conv = value.ndim == 4
            file[f"{module}.up"] = up[:, :, None, None] if conv else up
            file[f"{module}.down"] = down.reshape(RANK, *value.shape[1:])
            meant[key] = base[key] + (up @ down).reshape(value.shape)
    return file, meant


def runtime(base: dict[str, Tensor] | None) -> Runtime:
    return Runtime(torch.device("cpu"), torch.float32, None if base is None else lambda: base)


def saved(folder: Path, file: dict[str, Tensor]) -> Path:
    path = folder / "control-lora.safetensors"
    save_file({key: value.contiguous() for key, value in file.items()}, path)
    return path


def residuals(model: Any, inputs: dict[str, Tensor], hint: Tensor) -> tuple[Tensor, ...]:
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs.get("y"), (True, False), (0, 0), 0.5)
    return model.bind([Hint(hint, None, None)], settings()).residuals(step).outputs()  # type: ignore[arg-type]


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "known by its factors"])
@pytest.mark.parametrize("config", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_residuals_equal_the_merged_network(tmp_path: Path, config: UNetConfig, marked: bool) -> None:
    base = dict(unet(config).state_dict())
    file, meant = control_lora(config, base)
    if not marked:
        del file["lora_controlnet"]
    model = load_model(saved(tmp_path, file), runtime(base), discover())
    model.check(BaseModel(config, "tiny"))
    inputs = with_sizes(example(config))
    hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(5))
    oracle = diffusers_controlnet(ControlNetConfig(config, hint_widths=WIDTHS), meant)
    down, middle = oracle(**for_diffusers(inputs), controlnet_cond=hint.expand(2, -1, -1, -1), return_dict=False)
    ours = residuals(model, inputs, hint)
    assert min(float(part.std()) for part in (*down, middle)) > 0.05
    assert max(float((a - b).abs().max()) for a, b in zip(ours, [*down, middle], strict=True)) < 1e-4


def kohyas(file: dict[str, Tensor], flat: bool, alpha: float | None) -> dict[str, Tensor]:
    """The same file under sd-scripts' names; a change of alpha over the rank is made up for by the factor."""
    found: dict[str, Tensor] = {}
    for key, value in file.items():
        module, _, end = key.rpartition(".")
        if end not in ("up", "down"):
            found[key] = value
            continue
        name = f"lora_unet_{module.replace('.', '_')}" if flat else module
        found[f"{name}.lora_{end}.weight"] = value * (RANK / alpha) if alpha is not None and end == "up" else value
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)
    del found["lora_controlnet"]
    return found


@pytest.mark.parametrize(("flat", "alpha"), [(True, 1.0), (True, None), (False, 8.0)])
def test_kohyas_names_mean_the_same(tmp_path: Path, flat: bool, alpha: float | None) -> None:
    base = dict(unet(SD1).state_dict())
    file, _ = control_lora(SD1, base)
    (tmp_path / "other").mkdir()
    path = saved(tmp_path / "other", kohyas(file, flat, alpha))
    mine, theirs = (
        load_model(one, runtime(base), discover()).net.state_dict()  # type: ignore[attr-defined]
        for one in (saved(tmp_path, file), path)
    )
    assert mine.keys() == theirs.keys()
    assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < 1e-5
    facts = FactReader(discover()).read(path)
    assert (facts.family, facts.kind, facts.mismatch(BaseModel(SD1, "tiny"))) == ("control_lora", "a Control-LoRA", "")
    assert facts.mismatch(BaseModel(SD2, "tiny"))


def test_a_layer_that_is_none_of_the_bases_is_named(tmp_path: Path) -> None:
    base = dict(unet(SD1).state_dict())
    file = kohyas(control_lora(SD1, base)[0], True, 1.0)
    file["lora_unet_input_blocks_77_0.lora_down.weight"] = torch.ones(2, 4)
    file["lora_unet_input_blocks_77_0.lora_up.weight"] = torch.ones(4, 2)
    with pytest.raises(BaseModelError, match="lora_unet_input_blocks_77_0"):
        load_model(saved(tmp_path, file), runtime(base), discover())


def test_another_checkpoint_means_another_network(tmp_path: Path) -> None:
    bases = [dict(unet(SD1, seed).state_dict()) for seed in (2, 3)]
    file, _ = control_lora(SD1, bases[0])
    path = saved(tmp_path, file)
    cache = ModelCache(discover(), lambda: 1 << 30)
    models = [cache.get(path, runtime(base), str(number)) for number, base in enumerate([bases[0], bases[0], bases[1]])]
    assert models[0].holds_base
    key = "input_blocks.1.0.in_layers.2.weight"
    first, other = (dict(model.net.state_dict())[key] for model in (models[0], models[2]))  # type: ignore[attr-defined]
    assert not torch.equal(first, other)


def test_the_base_is_left_as_it_is(tmp_path: Path) -> None:
    base = dict(unet(SD1).state_dict())
    before = {key: value.clone() for key, value in base.items()}
    file, _ = control_lora(SD1, base)
    model = load_model(saved(tmp_path, file), runtime(base), discover())
    for weight in model.net.parameters():  # type: ignore[attr-defined]
        weight.data.zero_()
    assert all(torch.equal(base[key], value) for key, value in before.items())


@pytest.mark.parametrize(("other", "error"), [(SDXL, BaseModelError), (SD2, BaseModelError)])
def test_other_checkpoints_are_refused(tmp_path: Path, other: UNetConfig, error: type[Exception]) -> None:
    file, _ = control_lora(SD1, dict(unet(SD1).state_dict()))
    path = saved(tmp_path, file)
    facts = FactReader(discover()).read(path)
    assert facts.family == "control_lora"
    assert facts.mismatch(BaseModel(SD1, "tiny")) == ""
    assert facts.mismatch(BaseModel(other, "tiny"))
    with pytest.raises(error, match="another network than the checkpoint's U-Net"):
        load_model(path, runtime(dict(unet(other).state_dict())), discover())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("input_blocks.4.0.in_layers.2.up"), "without the other"),
        (lambda f: f.pop("zero_convs.3.0.bias"), "missing: zero_convs.3.0.bias"),
        (lambda f: f.update(surplus=torch.ones(1)), "not part of the network: surplus"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    base = dict(unet(SD1).state_dict())
    file, _ = control_lora(SD1, base)
    change(file)
    with pytest.raises(ModelFileError, match=words.replace(".", r"\.")):
        load_model(saved(tmp_path, file), runtime(base), discover())


def test_without_a_checkpoint_it_says_so(tmp_path: Path) -> None:
    file, _ = control_lora(SD1, dict(unet(SD1).state_dict()))
    with pytest.raises(ModelFileError, match="no checkpoint is loaded"):
        load_model(saved(tmp_path, file), runtime(None), discover())
