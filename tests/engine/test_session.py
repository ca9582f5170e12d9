"""A session's control against diffusers' MultiControlNetModel, and the errors of units that cannot take effect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from safetensors.torch import save_file

from annotator.sd_controlnet.registry import UnknownPreprocessor
from annotator.sd_controlnet.spec import PreprocessorSpec, Slider
from annotator.sd_controlnet.spec import Runtime as AnnotatorRuntime
from lib_controlnet.core.checkpoint import no_checkpoint
from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError, UnitError
from lib_controlnet.core.modes import ControlMode, HiResOption, ResizeMode
from lib_controlnet.core.schedule import soft_ramp
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine.generation import Picture, Region
from lib_controlnet.engine.library import ModelLibrary
from lib_controlnet.engine.model_cache import ModelCache
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.engine.services import Services
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover
from lib_controlnet.nets.config import UNetConfig

from .tiny import randomise

SIZE = 64
CONFIG = UNetConfig(4, 4, 32, (1, 2), 2, (1, 1), 1, 24, 8, None, False, None)


def reference(seed: int) -> ControlNetModel:
    """diffusers' ControlNet of the same layout with random weights."""
    net = ControlNetModel(
        in_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=2,
        cross_attention_dim=24,
        attention_head_dim=8,
        conditioning_embedding_out_channels=(8, 8, 16, 16),
    )
    return randomise(net, seed)


@dataclass(frozen=True, kw_only=True)
class FakeSpec(PreprocessorSpec):
    """A preprocessor that passes pictures through: what is tested here comes after it."""

    id: str = "none"
    resolution: Slider | None = None


class FakeAnnotators:
    entries = ()

    def __init__(self, spec=None):
        self.spec = spec or FakeSpec()

    def get(self, name):
        if name != self.spec.id:
            raise UnknownPreprocessor(f'there is no preprocessor "{name}"')
        return SimpleNamespace(spec=self.spec, load=lambda _: lambda image, **_: image.copy())


@dataclass
class FakeGeneration:
    width: int = SIZE
    height: int = SIZE
    hires: bool = False
    final_size: tuple[int, int] = (SIZE, SIZE)
    paints_mask: bool = False
    seed: int = 1
    batch_size: int = 1
    unit_per_image: bool = False
    film: bool = False
    base: BaseModel = field(default_factory=lambda: BaseModel(CONFIG, "tiny.safetensors"))
    base_id: str = "tiny"
    runtime: Runtime = field(default_factory=lambda: Runtime(torch.device("cpu"), torch.float32))
    sources: tuple = ()

    def region(self, unit, spec):
        return None if unit.region_mask is None else Region(unit.region_mask)

    def checkpoint(self):
        return no_checkpoint()

    def pictures(self, unit, spec):
        return [
            Picture(image, unit.mask, unit.resize_mode) for image in self.sources or [unit.image] if image is not None
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name, seed in (("first", 1), ("second", 2), ("a_shuffle", 1)):
        save_file(reference(seed).state_dict(), path / f"{name}.safetensors")
    return path


def services(folder, spec=None, **settings):
    annotators = FakeAnnotators(spec)
    return Services(
        ModelLibrary(lambda: [folder]),
        annotators,
        PreprocessRunner(annotators, AnnotatorRuntime),
        ModelCache(discover(), lambda: 1 << 30),
        lambda key, default: settings.get(key, default),
    )


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def unit(index=0, **fields) -> ControlNetUnit:
    given = {"model": "first", "image": picture(index), "resize_mode": ResizeMode.just_resize}
    return ControlNetUnit(index=index, enabled=True, **{**given, **fields})


def step(batch=2, progress=0.0, is_cond=(True, False), images=(0, 0)) -> Step:
    generator = torch.Generator().manual_seed(9)
    return Step(
        x=torch.randn(batch, 4, SIZE // 8, SIZE // 8, generator=generator),
        timesteps=torch.full((batch,), 501.25),
        context=torch.randn(batch, 7, 24, generator=generator),
        y=None,
        is_cond=is_cond,
        images=images,
        progress=progress,
    )


def began(folder, *units, generation=None, pass_=Pass.base, **settings) -> ControlSession:
    session = ControlSession(services(folder, **settings), generation or FakeGeneration())
    session.prepare(units)
    session.begin(pass_, SIZE, SIZE)
    return session


def added(session, now):
    """What a session adds in one U-Net call."""
    found = session.begin_call(now)[1]
    session.done()
    return found


@torch.no_grad()
def expected(s: Step, seeds, units, weights):
    """What diffusers adds: skips and middle, summed over the units."""
    hints = [torch.from_numpy(u.image).permute(2, 0, 1)[None].float() / 255 for u in units]
    hints = [hint.expand(s.batch, -1, -1, -1) for hint in hints]
    nets = MultiControlNetModel([reference(seed) for seed in seeds])
    skips, middle = nets(s.x, s.timesteps, s.context, hints, list(weights), return_dict=False)
    return [*skips, middle]


def difference(control, tensors) -> float:
    assert len(control.outputs()) == len(tensors)
    return max(float((a - b).abs().max()) for a, b in zip(control.outputs(), tensors, strict=True))


def test_two_units_equal_diffusers_multi_controlnet(folder):
    units = (unit(0, weight=0.7), unit(1, model="second", weight=1.3))
    control = added(began(folder, *units), step())
    tensors = expected(step(), (1, 2), units, (0.7, 1.3))
    assert difference(control, tensors) <= 1e-4
    assert max(float(t.abs().max()) for t in tensors) > 0.1


@pytest.mark.parametrize("mode", [ControlMode.prompt, ControlMode.control])
def test_unbalanced_modes_scale_by_the_soft_ramp(folder, mode):
    control = added(began(folder, unit(weight=0.8, control_mode=mode)), step())
    ramp = soft_ramp(len(control.outputs()))
    for got, raw, factor in zip(control.outputs(), expected(step(), (1,), (unit(),), (1.0,)), ramp, strict=True):
        assert torch.allclose(got[0], raw[0] * 0.8 * factor, atol=1e-4)
        uncond = torch.zeros_like(raw[1]) if mode is ControlMode.control else raw[1] * 0.8 * factor
        assert torch.allclose(got[1], uncond, atol=1e-4)


def test_uncond_rows_alone_cost_nothing_when_control_is_more_important(folder):
    session = began(folder, unit(control_mode=ControlMode.control))
    assert added(session, step(is_cond=(False, False))) is None


@pytest.mark.parametrize(("progress", "acts"), [(0.1, False), (0.3, True), (0.6, True), (0.7, False)])
def test_a_unit_acts_only_in_its_range(folder, progress, acts):
    session = began(folder, unit(guidance_start=0.25, guidance_end=0.65))
    assert (added(session, step(progress=progress)) is not None) is acts


def test_weight_zero_adds_nothing(folder):
    assert added(began(folder, unit(weight=0.0)), step()) is None


def test_the_region_mask_is_stretched_over_every_residual(folder):
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    control = added(began(folder, unit(region_mask=mask)), step())
    for got, raw in zip(control.outputs(), expected(step(), (1,), (unit(),), (1.0,)), strict=True):
        half = raw.shape[-1] // 2
        assert not got[..., : half - 1].any()
        assert torch.allclose(got[..., half + 1 :], raw[..., half + 1 :], atol=1e-4)


def test_shuffle_models_are_pooled_and_speak_to_cond_rows_only(folder):
    sidecar = folder / "a_shuffle.yaml"
    sidecar.write_text("model: {params: {global_average_pooling: True}}\n")
    try:
        control = added(began(folder, unit(model="a_shuffle")), step())
    finally:
        sidecar.unlink()
    for got, raw in zip(control.outputs(), expected(step(), (1,), (unit(),), (1.0,)), strict=True):
        assert got.shape[2:] == (1, 1)
        assert torch.allclose(got[0], raw[0].mean((1, 2), keepdim=True), atol=1e-4)
        assert not got[1].any()


def test_a_name_that_merely_tells_of_shuffle_is_not_enough_to_pool(folder):
    assert added(began(folder, unit(model="a_shuffle")), step()).middle.shape[2:] != (1, 1)


def test_each_unit_for_each_picture(folder):
    units = (unit(0), unit(1, model="second"))
    generation = FakeGeneration(unit_per_image=True)
    four = step(4, is_cond=(True, True, False, False), images=(0, 1, 0, 1))
    control = added(began(folder, *units, generation=generation), four)
    firsts = expected(four, (1,), units[:1], (1.0,))
    seconds = expected(four, (2,), units[1:], (1.0,))
    for got, a, b in zip(control.outputs(), firsts, seconds, strict=True):
        assert torch.allclose(got[[0, 2]], a[[0, 2]], atol=1e-4)
        assert torch.allclose(got[[1, 3]], b[[1, 3]], atol=1e-4)


def test_a_batch_of_sources_has_a_hint_for_each_picture(folder):
    sources = (picture(5), picture(6))
    four = step(4, is_cond=(True, True, False, False), images=(0, 1, 0, 1))
    control = added(began(folder, unit(), generation=FakeGeneration(sources=sources)), four)
    for image in (0, 1):
        tensors = expected(four, (1,), (unit(image=sources[image]),), (1.0,))
        for got, raw in zip(control.outputs(), tensors, strict=True):
            assert torch.allclose(got[[image, image + 2]], raw[[image, image + 2]], atol=1e-4)


@pytest.mark.parametrize(
    ("option", "base", "hires"), [(HiResOption.both, 1, 1), (HiResOption.low, 1, 0), (HiResOption.high, 0, 1)]
)
def test_hires_option(folder, option, base, hires):
    session = began(folder, unit(hr_option=option), generation=FakeGeneration(hires=True))
    assert (added(session, step()) is not None) == bool(base)
    session.begin(Pass.hires, SIZE, SIZE)
    assert (added(session, step()) is not None) == bool(hires)


def test_canny_uses_soft_weights_in_the_hires_pass(folder):
    session = ControlSession(services(folder, FakeSpec(soft_weights_in_hires=True)), FakeGeneration(hires=True))
    session.prepare([unit()])
    session.begin(Pass.hires, SIZE, SIZE)
    control = added(session, step())
    plain = expected(step(), [1], [unit()], [1.0])
    ramp = soft_ramp(session.runs[0].model.outputs)
    assert difference(control, [weight * part for weight, part in zip(ramp, plain, strict=True)]) < 1e-4


def test_disabled_units_are_not_looked_at(folder):
    session = ControlSession(services(folder), FakeGeneration())
    session.prepare([ControlNetUnit(model="nothing of that name")])
    assert session.runs == []


def wrong_base() -> FakeGeneration:
    sdxl = replace(CONFIG, context_dim=2048, adm_channels=2816, model_channels=320, channel_mult=(1, 2, 4))
    return replace(FakeGeneration(), base=BaseModel(sdxl, "xl.safetensors"))


@pytest.mark.parametrize(
    ("fields", "error", "field", "words"),
    [
        ({"model": "nothing"}, ModelFileError, "model", ("nothing", "was not found")),
        ({"model": "None"}, UnitError, "model", ("no model",)),
        ({"model": "first [deadbeef]"}, ModelFileError, "model", ("deadbeef", "first [")),
        ({"image": None}, UnitError, "image", ("no picture",)),
        ({"preprocessor": "cany"}, PreprocessorError, "module", ("cany",)),
        ({"layer_weights": (1.0, 1.0)}, UnitError, "advanced_weighting", ("2 weights for 7 layers",)),
    ],
)
def test_a_unit_that_cannot_take_effect_says_why(folder, fields, error, field, words):
    with pytest.raises(error) as caught:
        ControlSession(services(folder), FakeGeneration()).prepare([unit(2, **fields)])
    text = str(caught.value)
    assert caught.value.unit == 2
    assert caught.value.field == field
    assert "unit 2" in text
    assert all(word in text for word in (*words, "What to do")), text


def test_a_model_for_another_base_is_refused_by_both_names(folder):
    with pytest.raises(BaseModelError, match=r"unit 0.*first\.safetensors.*SDXL.*xl\.safetensors"):
        ControlSession(services(folder), wrong_base()).prepare([unit()])


def test_another_base_in_mid_generation_stops_units_that_would_act(folder):
    session = began(folder, unit(guidance_end=0.5))
    session.rebase(wrong_base().base)
    with pytest.raises(BaseModelError, match="took over"):
        added(session, step(progress=0.4))
    assert added(session, step(progress=0.6)) is None
    session.rebase(FakeGeneration().base)
    assert added(session, step(progress=0.4)) is not None


def test_what_fills_gaps_fills_what_resize_and_fill_adds(folder):
    """Outpainting: the preprocessor sees the picture in the job's size, with the border to be painted."""
    spec = FakeSpec(id="filling", accepts_mask=True, fills_border=True)
    shared = services(folder, spec)
    seen = []

    def detect(image, *, mask, **_):
        seen.append((image, mask))
        return image.copy()

    shared.annotators.get = lambda _name: SimpleNamespace(spec=spec, load=lambda _: detect)
    wide = picture(3)[: SIZE // 2]
    session = ControlSession(shared, FakeGeneration())
    session.prepare([unit(image=wide, preprocessor=spec.id, resize_mode=ResizeMode.resize_and_fill)])
    image, mask = seen[0]
    assert image.shape == (SIZE, SIZE, 3)
    assert mask.shape == (SIZE, SIZE)
    border = np.ones(SIZE, bool)
    border[SIZE // 4 : SIZE - SIZE // 4] = False
    assert (mask[border] == 255).all()
    assert not mask[~border].any()
    assert np.array_equal(image[~border], wide)
