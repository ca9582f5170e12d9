"""IP-Adapters of every kind and layout, inside a whole U-Net, against diffusers'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lib_controlnet.core.embeddings import FACE, HIDDEN, IMAGE, ZERO_HIDDEN
from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError, UnitError
from lib_controlnet.core.image_prompt import Combine, EmbedsScaling, ImagePrompt, Uncond, WeightType
from lib_controlnet.core.step import Step
from lib_controlnet.families.base import BaseModel, Runtime, UnitSettings
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel
from tests.engine.test_session import FakeGeneration
from tests.families.driving import called, session_with
from tests.families.ip_files import KINDS, LAYOUTS, WITH_LORA, weights_of, write
from tests.nets.ldm_oracle import diffusers_unet, example, for_diffusers, randomise, with_sizes
from tests.nets.sizes import SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
PLAIN = ImagePrompt()
SIDE = 128
READS = {
    "base": {IMAGE: (1024,)},
    "vit-G": {IMAGE: (1280,)},
    "plus": {HIDDEN: (257, 1280)},
    "full-face": {HIDDEN: (257, 1280)},
    "faceid": {FACE: (512,)},
    "portrait": {FACE: (512,)},
    "faceid-plus": {FACE: (512,), HIDDEN: (257, 1280)},
    "unnorm": {FACE: (512,)},
}


class Asking:
    """A file's model with what its unit asks for."""

    def __init__(self, model: Any, prompt: ImagePrompt) -> None:
        self.__dict__.update(vars(model), holds_base=False, from_fp8=False)
        self._model, self._prompt = model, prompt

    def check(self, base: BaseModel) -> None:
        self._model.check(base)

    def bind(self, hints: Any, settings: UnitSettings) -> Any:
        return self._model.bind(hints, replace(settings, image_prompt=self._prompt))


def tensors(kind: str, pictures: int = 1, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(pictures, *shape, generator=generator) for name, shape in READS[kind].items()}
    if HIDDEN in made:
        made[ZERO_HIDDEN] = torch.randn(1, 257, 1280, generator=generator)
    return made


def unet_of(config: UNetConfig) -> UNetModel:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    return unet


def ours(
    path: Path,
    config: UNetConfig,
    given: Any,
    weight: float = 1.0,
    prompt: ImagePrompt = PLAIN,
    region: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The prediction for a cond and an uncond row; and what it is without the adapter."""
    unet, inputs = unet_of(config), with_sizes(example(config))
    model: Any = Asking(load_model(path, CPU, discover()), prompt)
    generation = FakeGeneration(base=BaseModel(config, "tiny"))
    model.check(generation.base)
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs.get("y"), (True, False), (0, 0), 0.5)
    session = session_with([model], given, generation, (SIDE, SIDE), region, weight=weight)
    with torch.no_grad():
        plain = unet(**inputs)
    return called(unet, step, session), plain


def zero_of(given: dict[str, Tensor], name: str) -> Tensor:
    return given[ZERO_HIDDEN].expand_as(given[name]) if name == HIDDEN else torch.zeros_like(given[name])


def theirs(kind: str, config: UNetConfig, given: dict[str, Tensor], scale: float = 1.0, shortcut: Any = None) -> Tensor:
    """diffusers' U-Net with the adapter; the low-rank layers merged into its weights by hand."""
    weights = weights_of(kind, config)
    oracle: Any = diffusers_unet(config, unet_of(config).state_dict())
    merge(oracle, weights["ip_adapter"])
    oracle._load_ip_adapter_weights([weights], low_cpu_mem_usage=False)
    for processor in oracle.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    first = next(iter(READS[kind]))
    rows = torch.stack([given[first], zero_of(given, first)])  # (2 rows, pictures, ...)
    if kind == "unnorm":
        rows = rows[:, :, None]
    if kind == "faceid-plus":
        projection = oracle.encoder_hid_proj.image_projection_layers[0]
        projection.clip_embeds = torch.stack([given[HIDDEN], zero_of(given, HIDDEN)])
        projection.shortcut, projection.shortcut_scale = shortcut is not None, shortcut or 1.0
    inputs = for_diffusers(with_sizes(example(config)))
    inputs.setdefault("added_cond_kwargs", {})["image_embeds"] = [rows]
    with torch.no_grad():
        return oracle(**inputs).sample


def merge(oracle: Any, layers: dict[str, Tensor]) -> None:
    for number, name in enumerate(oracle.attn_processors):
        attention = oracle.get_submodule(name.removesuffix(".processor"))
        for part, module in (
            ("to_q", attention.to_q),
            ("to_k", attention.to_k),
            ("to_v", attention.to_v),
            ("to_out", attention.to_out[0]),
        ):
            if f"{number}.{part}_lora.up.weight" in layers:
                up, down = (layers[f"{number}.{part}_lora.{side}.weight"] for side in ("up", "down"))
                module.weight.data = module.weight.data + up @ down


def close(mine: Tensor, oracle: Tensor, plain: Tensor) -> None:
    assert float((oracle - plain).abs().max()) > 0.02, "the adapter must change something"
    assert float((mine - oracle).abs().max() / oracle.abs().max()) < 1e-4


DIFFUSERS = [kind for kind in KINDS if kind != "portrait"]
"""Of 16 tokens of a face diffusers knows nothing."""


@pytest.mark.parametrize("kind", DIFFUSERS)
@pytest.mark.parametrize("pictures", [1, 3])
def test_a_whole_unet_is_diffusers(tmp_path: Path, kind: str, pictures: int) -> None:
    given = tensors(kind, pictures)
    mine, plain = ours(write(tmp_path / "a.safetensors", kind, SD1), SD1, given, 0.7)
    close(mine, theirs(kind, SD1, given, 0.7), plain)


def test_portraits_have_sixteen_tokens_of_a_face(tmp_path: Path) -> None:
    """diffusers does not know them; tencent's `MLPProjModel` with 16 tokens, written out."""
    given = tensors("portrait", 2)
    model: Any = load_model(write(tmp_path / "a.safetensors", "portrait", SD1), CPU, discover())
    told = model.bind([], UnitSettings(0, BaseModel(SD1, "tiny"), tensors=[given])).tokens()
    table = weights_of("portrait", SD1)["image_proj"]
    for row, faces in zip(told, (given[FACE], torch.zeros(1, 512)), strict=True):
        inner = functional.gelu(functional.linear(faces, table["proj.0.weight"], table["proj.0.bias"]))
        tokens = functional.linear(inner, table["proj.2.weight"], table["proj.2.bias"]).reshape(-1, SD1.context_dim)
        wanted = functional.layer_norm(tokens, (SD1.context_dim,), table["norm.weight"], table["norm.bias"])
        assert len(wanted) == 16 * len(faces)
        torch.testing.assert_close(row, wanted.repeat(len(row) // len(wanted), 1))


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_sdxl_is_diffusers(tmp_path: Path, kind: str) -> None:
    given = tensors(kind)
    mine, plain = ours(write(tmp_path / "a.safetensors", kind, SDXL), SDXL, given)
    close(mine, theirs(kind, SDXL, given), plain)


def test_the_second_faceid_plus_is_diffusers(tmp_path: Path) -> None:
    given = tensors("faceid-plus")
    path = write(tmp_path / "plusv2.safetensors", "faceid-plus", SD1)
    mine, plain = ours(path, SD1, given, prompt=ImagePrompt(shortcut=0.6))
    close(mine, theirs("faceid-plus", SD1, given, shortcut=0.6), plain)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["base", "faceid"])
def test_every_layout_is_read(tmp_path: Path, kind: str, layout: str) -> None:
    given = tensors(kind)
    wanted, _ = ours(write(tmp_path / "a.safetensors", kind, SD1), SD1, given)
    mine, _ = ours(write(tmp_path / "b.safetensors", kind, SD1, layout), SD1, given)
    assert float((mine - wanted).abs().max()) < (0.02 if layout == "half" else 1e-6)


@pytest.mark.parametrize("how", [Combine.average, Combine.norm_average, Combine.add, Combine.subtract])
def test_pictures_are_combined_before_they_are_projected(tmp_path: Path, how: Combine) -> None:
    given = tensors("base", 3)
    e = given[IMAGE]
    one = {
        Combine.average: e.mean(0, keepdim=True),
        Combine.norm_average: (e / e.norm(dim=0, keepdim=True)).mean(0, keepdim=True),
        Combine.add: e.sum(0, keepdim=True),
        Combine.subtract: e[:1] - e[1:].mean(0, keepdim=True),
    }[how]
    path = write(tmp_path / "a.safetensors", "base", SD1)
    mine, plain = ours(path, SD1, given, prompt=ImagePrompt(combine=how))
    close(mine, theirs("base", SD1, {IMAGE: one}), plain)


def test_weights_types_and_scalings_differ(tmp_path: Path) -> None:
    path, given = write(tmp_path / "a.safetensors", "base", SD1), tensors("base")
    made = [ours(path, SD1, given, 0.7, ImagePrompt(kind, 0.3, 0.4))[0] for kind in WeightType]
    made += [ours(path, SD1, given, 0.7, ImagePrompt(scaling=kind))[0] for kind in list(EmbedsScaling)[1:]]
    for index, one in enumerate(made):
        assert all(not torch.equal(one, other) for other in made[:index])


def test_the_precise_types_leave_cond_rows_alone_where_they_swap(tmp_path: Path) -> None:
    """With style and composition boosts of their own only the swapped places remain at weight."""
    path, given = write(tmp_path / "a.safetensors", "base", SD1), tensors("base")
    mine, plain = ours(path, SD1, given, 1.0, ImagePrompt(weight_type=WeightType.composition_precise))
    assert not torch.equal(mine[1], plain[1])


@pytest.mark.parametrize("kind", ["base", "faceid"])
def test_a_region_is_kept_to(tmp_path: Path, kind: str) -> None:
    """A white mask is none, and of a FaceID's changes to what the prompt says as much counts as the mask is large."""
    path, given = write(tmp_path / "a.safetensors", kind, SD1), tensors(kind)
    wanted, plain = ours(path, SD1, given)
    white, half = (torch.full((1, 1, 16, 16), level) for level in (1.0, 0.5))
    assert float((ours(path, SD1, given, region=white)[0] - wanted).abs().max()) < 1e-5
    between = ours(path, SD1, given, region=half)[0]
    assert 0.0 < float((between - plain).norm()) < float((wanted - plain).norm())


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_too_few_or_too_many_is_named(tmp_path: Path, kind: str) -> None:
    weights = weights_of(kind, SD1)
    key = list(weights["ip_adapter"])[-1]
    for table, name in (
        ({**weights, "ip_adapter": {k: v for k, v in weights["ip_adapter"].items() if k != key}}, key),
        ({**weights, "image_proj": {**weights["image_proj"], "odd.weight": torch.zeros(2)}}, "odd.weight"),
    ):
        path = LAYOUTS["safetensors"](tmp_path / "a.safetensors", table)
        with pytest.raises(ModelFileError) as caught:
            load_model(path, CPU, discover())
        assert name in str(caught.value)


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "a.safetensors", "base", SD1), CPU, discover())
    with pytest.raises(BaseModelError, match="16 attentions"):
        model.check(BaseModel(SDXL, "xl"))
    with pytest.raises(BaseModelError, match="channels"):
        model.check(BaseModel(replace(SD1, model_channels=64), "wide"))


def test_what_it_does_not_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", "plus", SD1)
    with pytest.raises(PreprocessorError, match=r"penultimate_hidden_state"):
        ours(path, SD1, tensors("base"))
    given = tensors("plus")
    del given[ZERO_HIDDEN]
    with pytest.raises(PreprocessorError, match="zero_hidden_state"):
        ours(path, SD1, given)
    with pytest.raises(UnitError, match="of their own"):
        ours(path, SD1, tensors("plus"), prompt=ImagePrompt(uncond=Uncond.picture))


def test_an_adapter_for_kolors_is_refused_by_name(tmp_path: Path) -> None:
    weights = weights_of("plus", SDXL)
    weights["image_proj"]["proj_in.weight"] = torch.zeros(96, 1024)
    path = LAYOUTS["safetensors"](tmp_path / "a.safetensors", weights)
    with pytest.raises(ModelFileError, match="Kolors"):
        load_model(path, CPU, discover())


def test_loras_have_a_strength(tmp_path: Path) -> None:
    assert WITH_LORA == ("faceid", "faceid-plus")
    path, given = write(tmp_path / "a.safetensors", "faceid", SD1), tensors("faceid")
    full, half, none = (ours(path, SD1, given, prompt=ImagePrompt(lora=s))[0] for s in (1.0, 0.5, 0.0))
    assert not torch.equal(full, half)
    assert not torch.equal(half, none)
