"""PuLID of both versions, in every mode and layout, inside a whole U-Net, against diffusers' U-Net with the authors'
attention written out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lib_controlnet.core.embeddings import FACE
from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError
from lib_controlnet.core.image_prompt import Combine, EmbedsScaling, ImagePrompt
from lib_controlnet.core.modes import PulidMode
from lib_controlnet.core.step import Step
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime, UnitSettings
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel
from tests.engine.test_session import FakeGeneration
from tests.families.driving import called, session_with
from tests.families.pulid_files import KINDS, LAYOUTS, embeddings, tokens, weights_of, write
from tests.nets.ldm_oracle import diffusers_unet, example, for_diffusers, randomise, with_sizes
from tests.nets.sizes import SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)


class Asking:
    """A file's model with what its unit asks for."""

    def __init__(self, model: Any, wishes: dict[str, Any]) -> None:
        self.__dict__.update(vars(model), holds_base=False, from_fp8=False, embeddings=model.embeddings)
        self._model, self._wishes = model, wishes

    def check(self, base: BaseModel) -> None:
        self._model.check(base)

    def bind(self, hints: Any, settings: UnitSettings) -> Any:
        return self._model.bind(hints, replace(settings, **self._wishes))


def unet_of(config: UNetConfig) -> UNetModel:
    unet = UNetModel(config)
    randomise(unet, seed=2)
    return unet


def inputs_of(config: UNetConfig, size: tuple[int, int] = (16, 16)) -> dict[str, Tensor]:
    return with_sizes(example(config, size=size))


def ours(
    path: Path, config: UNetConfig, given: Any, inputs: dict[str, Tensor] | None = None, **wishes: Any
) -> tuple[Tensor, Tensor]:
    """The prediction for a cond and an uncond row, and what it is without the face. `weight` and the like: a unit's."""
    fields = {key: wishes.pop(key) for key in ("weight", "region_mask", "guidance_start") if key in wishes}
    unet, inputs = unet_of(config), inputs or inputs_of(config)
    model = Asking(load_model(path, CPU, discover()), wishes)
    generation = FakeGeneration()
    generation.base = BaseModel(config, "tiny")
    model.check(generation.base)
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs.get("y"), (True, False), (0, 0), 0.5)
    session = session_with([model], given, generation, **fields)
    with torch.no_grad():
        return called(unet, step, session), unet(**inputs)


class Attending:
    """The authors' `IDAttnProcessor2_0` with their three globals as `mode`."""

    def __init__(self, layers: dict[str, Tensor], number: int, rows: Tensor, mode: PulidMode, scale: float) -> None:
        self.to_k, self.to_v = (layers[f"{number}.id_to_{part}.weight"] for part in "kv")
        self.rows, self.mode, self.scale = rows, mode, scale

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q = split(attn.to_q(hidden_states))
        k, v = split(attn.to_k(encoder_hidden_states)), split(attn.to_v(encoder_hidden_states))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        zeros = {PulidMode.fidelity: 8, PulidMode.style: 16, PulidMode.neutral: 0}[self.mode]
        face = torch.cat([self.rows, torch.zeros(len(self.rows), zeros, self.rows.shape[2])], dim=1)
        k, v = split(F.linear(face, self.to_k)), split(F.linear(face, self.to_v))
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        projection = (h * z).sum(dim=-2, keepdim=True) / (h * h).sum(dim=-2, keepdim=True) * h
        if self.mode is PulidMode.fidelity:
            mean = (q @ k.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)[:, :, :5].sum(dim=-1, keepdim=True)
            z = z + (mean - 1) * projection
        elif self.mode is PulidMode.style:
            z = z - projection
        return attn.to_out[0](h + self.scale * z)


def attending(kind: str, config: UNetConfig, given: dict[str, Tensor], mode: PulidMode, scale: float) -> Any:
    """By the file's number of an attention: the authors' processor."""
    weights = weights_of(kind, config)
    nothing = {key: torch.zeros_like(value if kind == "v1" else value[:1]) for key, value in given.items()}
    rows = torch.cat([tokens(weights, given), tokens(weights, nothing)])
    return lambda number: Attending(weights["id_adapter_attn_layers"], number, rows, mode, scale)


def theirs(
    kind: str,
    config: UNetConfig,
    given: dict[str, Tensor],
    mode: PulidMode = PulidMode.fidelity,
    scale: float = 1.0,
) -> Tensor:
    oracle: Any = diffusers_unet(config, unet_of(config).state_dict())
    processor = attending(kind, config, given, mode, scale)
    both = enumerate(oracle.attn_processors.items())
    oracle.set_attn_processor({name: processor(n) if n % 2 else own for n, (name, own) in both})
    with torch.no_grad():
        return oracle(**for_diffusers(inputs_of(config))).sample


def close(mine: Tensor, oracle: Tensor, plain: Tensor) -> None:
    assert float((oracle - plain).abs().max()) > 0.02, "the face must change something"
    assert float((mine - oracle).abs().max() / oracle.abs().max()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", PulidMode)
def test_a_whole_unet_is_the_authors(tmp_path: Path, kind: str, mode: PulidMode) -> None:
    given = embeddings()
    mine, plain = ours(write(tmp_path / "a.safetensors", kind, SDXL), SDXL, given, weight=0.8, pulid_mode=mode)
    close(mine, theirs(kind, SDXL, given, mode, 0.8), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_several_faces_are_mixed_as_the_authors_do(tmp_path: Path, kind: str) -> None:
    given = embeddings(3)
    mine, plain = ours(write(tmp_path / "a.safetensors", kind, SDXL), SDXL, given)
    close(mine, theirs(kind, SDXL, given), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [SD1, SDXL], ids=["SD1", "SDXL"])
def test_odd_sizes(tmp_path: Path, config: UNetConfig, kind: str) -> None:
    """200x136 pixels, where diffusers' own U-Net is another one than LDM's: the authors' attention in ours.

    No file is published for SD 1.x; one of its shape works.
    """
    given, inputs = embeddings(), inputs_of(config, (17, 25))
    mine, plain = ours(write(tmp_path / "a.safetensors", kind, config), config, given, inputs)
    unet, processor = unet_of(config), attending(kind, config, given, PulidMode.fidelity, 1.0)
    found = [(name, module) for name, module in unet.named_modules() if name.endswith(".attn2")]
    found.sort(key=lambda pair: "middle" in pair[0])  # the last ones of the file
    for index, (_, module) in enumerate(found):
        module.forward = partial(processor(2 * index + 1), module)
    with torch.no_grad():
        close(mine, unet(**inputs), plain)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_read(tmp_path: Path, kind: str, layout: str) -> None:
    given = embeddings()
    wanted, _ = ours(write(tmp_path / "a.safetensors", kind, SD1), SD1, given)
    path = write(tmp_path / "b.safetensors", kind, SD1, layout)
    assert FactReader(discover()).read(path).family == "pulid"
    mine, _ = ours(path, SD1, given)
    assert float((mine - wanted).abs().max()) < (0.02 if layout == "half" else 1e-6)


@pytest.mark.parametrize("layout", ["authors", "converted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_too_few_or_too_many_is_named(tmp_path: Path, kind: str, layout: str) -> None:
    whole = weights_of(kind, SD1)
    for part, table in whole.items():
        for key in list(table)[:: len(table) // 12]:
            less = {**whole, part: {name: value for name, value in table.items() if name != key}}
            named = key.replace("id_to_k", "to_k_ip").replace("id_to_v", "to_v_ip")
            with pytest.raises(ModelFileError) as caught:
                load_model(LAYOUTS[layout](tmp_path / "a.safetensors", less), CPU, discover())
            assert named.removesuffix(".weight").rpartition(".to_")[0] in str(caught.value), key
    more = {**whole, "id_adapter": {**whole["id_adapter"], "odd.weight": torch.zeros(2)}}
    with pytest.raises(ModelFileError, match=r"odd\.weight"):
        load_model(LAYOUTS[layout](tmp_path / "a.safetensors", more), CPU, discover())


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", "v1", SDXL)
    model, facts = load_model(path, CPU, discover()), FactReader(discover()).read(path)
    assert facts.mismatch(BaseModel(SDXL, "xl")) == ""
    for wrong in (BaseModel(SD1, "one"), BaseModel(replace(SDXL, model_channels=64), "wide")):
        assert facts.mismatch(wrong)
        with pytest.raises(BaseModelError, match="PuLID for"):
            model.check(wrong)


def test_what_it_does_not_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", "v1", SD1)
    with pytest.raises(PreprocessorError, match="id_cond"):
        ours(path, SD1, {FACE: torch.zeros(1, 512)})
    short = embeddings()
    del short["id_vit_hidden_3"]
    with pytest.raises(PreprocessorError, match="id_vit_hidden_3"):
        ours(path, SD1, short)
    with pytest.raises(PreprocessorError, match="ip-adapter_pulid"):
        load_model(path, CPU, discover()).bind([], UnitSettings(0, BaseModel(SD1, "tiny")))


def test_without_a_prompt_nothing_is_taken_away(tmp_path: Path) -> None:
    """A context of zeros gives attentions of zeros, of which no direction can be taken."""
    path, inputs = write(tmp_path / "a.safetensors", "v1", SD1), inputs_of(SD1)
    inputs["context"] = torch.zeros_like(inputs["context"])
    made = {mode: ours(path, SD1, embeddings(), inputs, pulid_mode=mode)[0] for mode in PulidMode}
    assert all(bool(one.isfinite().all()) for one in made.values())


def test_choices_of_picture_prompts_count(tmp_path: Path) -> None:
    """Layers, scalings and mixtures as with an IP-Adapter."""
    path, given = write(tmp_path / "a.safetensors", "v1", SD1), embeddings(2)
    prompts = [
        ImagePrompt(),
        ImagePrompt(factors=((0, 1.0),)),
        ImagePrompt(combine=Combine.average),
        *(ImagePrompt(scaling=kind) for kind in list(EmbedsScaling)[1:]),
    ]
    made = [ours(path, SD1, given, weight=0.7, image_prompt=prompt)[0] for prompt in prompts]
    for index, one in enumerate(made):
        assert all(not torch.equal(one, other) for other in made[:index])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_projection_is_computed_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Sums over thousands of positions leave the range of float16; what is added stays as near as its rounding."""
    from lib_controlnet.families.pulid import _heed

    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(2, n, 64, generator=generator).to(dtype) * 6 for n in (50, 18))
    exact = _heed(q.double(), k.double(), 4)
    assert float((_heed(q.float(), k.float(), 4) - exact).abs().max()) < 1e-5
