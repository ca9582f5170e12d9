"""The Forge family's behaviours, seen by a control object and an extension that write everything down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from standalone import App, boot
from standalone.forge.variants import VARIANTS
from tests.standalone import tracing_extension
from tests.standalone.conftest import Traced, picture, pixels

ASKED = ("cond_or_uncond", "sigmas", "cond_mark", "cond_indices", "uncond_indices", "uuids", "sampling_sigmas")


class Control:
    """Answers what these hosts ask of a control object; any other attribute is an error."""

    __slots__ = ("asked", "previous_controlnet", "residuals", "transformer_options")

    def __init__(self, residuals: Any = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.residuals = residuals
        self.previous_controlnet: Any = None
        self.transformer_options: Any = None

    def set_previous_controlnet(self, previous: Any) -> Control:
        self.previous_controlnet = previous
        return self

    def get_models(self) -> list[Any]:
        self.asked.append(("get_models", None))
        return []

    def inference_memory_requirements(self, dtype: Any) -> int:
        self.asked.append(("memory", dtype))
        return 1000

    def pre_run(self, model: Any, percent_to_sigma: Any) -> None:
        self.asked.append(("pre_run", [percent_to_sigma(x) for x in (0, 0.5, 1)]))

    def cleanup(self) -> None:
        self.asked.append(("cleanup", None))

    def get_control(self, x: Any, t: Any, cond: Any, chunks: int, *options: Any) -> Any:
        known = options[0] if options else self.transformer_options
        self.asked.append(("control", {"x": x, "t": t, "cond": cond, "chunks": chunks, "options": dict(known)}))
        return None if self.residuals is None else self.residuals(x)

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    def controls(self) -> list[dict[str, Any]]:
        return [what for name, what in self.asked if name == "control"]


def patch(details: dict[str, Any], control: Control) -> None:
    """What an extension does in process_before_every_sampling."""
    objects = details["p"].sd_model.forge_objects
    unet = objects.unet.clone()
    unet.add_patched_controlnet(control)
    objects.unet = unet


def zeros(x: torch.Tensor) -> dict[str, list[Any]]:
    """Residuals of the tiny checkpoint: none of which changes anything."""
    return {"input": [], "middle": [torch.zeros(len(x), 1, 1, 1)], "output": [torch.zeros(len(x), 1, 1, 1)] * 12}


@pytest.fixture(params=VARIANTS, scope="module")
def app(request: Any, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    extension = tracing_extension.write(tmp_path_factory.mktemp("extensions") / "Tracing-Extension")
    settings = {"data_dir": tmp_path_factory.mktemp("data"), "extension_dirs": [extension], "api": False, "ui": False}
    argv = ["--ckpt-dir", str(checkpoints)]
    first = checkpoints / "first.safetensors"
    with boot(first, nested=True, argv=argv, behaving_as=request.param, **settings) as host:
        yield host


@pytest.fixture
def variant(app: App) -> Any:
    import modules_forge.forge_version as version  # pyright: ignore[reportMissingImports] # the host brings it

    return next(x for x in VARIANTS.values() if x.version == version.version)


@pytest.fixture
def control(host: Traced) -> Control:
    """A control object that every pass of every job of this test has."""
    made = Control()
    host.script["at_event"]["process_before_every_sampling"] = lambda details: patch(details, made)
    return made


def test_unconds_come_first_and_the_rows_are_told(host: Traced, control: Control, variant: Any) -> None:
    host.txt2img(batch_size=2, steps=2)
    first = control.controls()[0]
    assert first["chunks"] == 2
    assert first["options"]["cond_or_uncond"] == [1, 0]
    assert first["x"].shape == (4, 4, 8, 8)
    assert torch.equal(first["x"][:2], first["x"][2:])
    text = first["cond"]["c_crossattn"]
    assert torch.equal(text[0], text[1])
    assert torch.equal(text[2], text[3])
    assert not torch.equal(text[0], text[2])
    assert first["t"].shape == (4,)
    told = {name for name in ASKED if name in first["options"]}
    marks = {"cond_mark", "cond_indices", "uncond_indices"} if variant.marks_rows else {"uuids"}
    assert told == {"cond_or_uncond", "sigmas"} | marks | ({"sampling_sigmas"} if variant.schedule_told else set())
    params = host.details("cfg_denoiser")[0]["params"]
    assert params.x.shape[0] == 2  # not doubled, as in A1111


def test_a_pass_is_announced_and_ended(host: Traced, control: Control, variant: Any) -> None:
    host.txt2img(steps=2)
    assert control.names() == ["memory", "get_models", "pre_run", "control", "control", "cleanup"]
    known = dict(control.asked)
    assert known["memory"] == (torch.float32 if variant.knows_dtype else None)
    assert known["pre_run"] == pytest.approx([999999999.9, 1.6156, 0.0], abs=1e-3)


def test_prompts_with_and_are_chunks(host: Traced, control: Control) -> None:
    host.txt2img(prompt="a heart AND a blue square :0.5")
    assert control.controls()[0]["options"]["cond_or_uncond"] == [1, 0, 0]


def test_without_guidance_there_are_no_uncond_rows(host: Traced, control: Control, variant: Any) -> None:
    host.txt2img(cfg_scale=1.0)
    assert control.controls()[0]["options"]["cond_or_uncond"] == [0]
    told = host.details("process_before_every_sampling")[0]["kwargs"]
    assert (told["uc"] is None) == variant.uncond_dropped
    assert (host.details("cfg_denoiser")[0]["params"].text_uncond is None) == variant.uncond_dropped


def test_hires_by_api_has_no_guidance(host: Traced, control: Control, variant: Any) -> None:
    host.txt2img(enable_hr=True, hr_upscaler="Latent")
    rows = [x["options"]["cond_or_uncond"] for x in control.controls()]
    assert rows == [[1, 0]] * 2 + [[0]] * 2
    assert [x["x"].shape[-1] for x in control.controls()] == [8, 8, 16, 16]
    names = [x for x in host.names() if x in ("before_hr", "process_before_every_sampling", "post_sample")]
    calls = 1 + variant.hires.count("call")
    assert sorted(names) == sorted(["process_before_every_sampling"] * calls + ["before_hr", "post_sample"])


def test_the_first_hires_call_of_forge_meets_the_patched_unet(host: Traced, variant: Any) -> None:
    seen: list[int] = []

    def look(details: dict[str, Any]) -> None:
        seen.append(len(details["p"].sd_model.forge_objects.unet.list_controlnets()))
        patch(details, Control())

    host.script["at_event"]["process_before_every_sampling"] = look
    host.txt2img(enable_hr=True, hr_upscaler="Latent", n_iter=2)
    assert seen == ([0, 1, 0] if variant.name == "forge" else [0, 0]) * 2


def test_a_patched_unet_stays_until_the_next_batch(host: Traced, control: Control) -> None:
    host.txt2img()
    del host.script["at_event"]["process_before_every_sampling"]
    objects = host.app.modules("shared").sd_model.forge_objects
    assert objects.unet.list_controlnets() == [control]
    seen: list[int] = []
    for event in ("process", "before_process_batch"):
        host.script["at_event"][event] = lambda details: seen.append(
            len(details["p"].sd_model.forge_objects.unet.list_controlnets())
        )
    host.txt2img()
    assert seen == [1, 0]


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "Heun", "DDIM", "UniPC"])
def test_residuals_without_effect_change_nothing(host: Traced, control: Control, sampler: str) -> None:
    settings = {"sampler_name": sampler, "steps": 4}
    with_none = host.txt2img(**settings)
    control.residuals = zeros
    with_zeros = host.txt2img(**settings)
    control.residuals = lambda x: {**zeros(x), "middle": [torch.ones(len(x), 1, 1, 1)]}
    with_some = host.txt2img(**settings)
    assert np.array_equal(pixels(with_none), pixels(with_zeros))
    assert not np.array_equal(pixels(with_none), pixels(with_some))


def test_skips_get_their_residuals_by_place(host: Traced, control: Control, variant: Any) -> None:
    """The n-th of "output" goes to the skip of the n-th encoder block; "input" is taken from its end."""
    host.txt2img(steps=1)
    unet = host.app.modules("shared").sd_model.forge_objects.unet.model.diffusion_model
    made: list[torch.Tensor] = []
    met: list[torch.Tensor] = []
    handles = [x[-1].register_forward_hook(lambda _m, _i, out: made.append(out.clone())) for x in unet.input_blocks]
    handles += [
        x[0].register_forward_pre_hook(lambda _m, args: met.append(args[0].clone())) for x in unet.output_blocks
    ]
    first = unet.input_blocks[1][0].register_forward_pre_hook(lambda _m, args: met.append(args[0].clone()))

    def residuals(x: torch.Tensor) -> dict[str, list[Any]]:
        depth = len(unet.input_blocks)
        return {
            "input": [None] * (depth - 1) + [torch.full((len(x), 1, 1, 1), 100.0)],
            "middle": [None],
            "output": [torch.full((len(x), 1, 1, 1), 1.0 + place) for place in range(depth)],
        }

    control.residuals = residuals
    host.txt2img(steps=1)
    for handle in (*handles, first):
        handle.remove()
    made[0] = made[0] + 100.0
    assert torch.equal(met.pop(0), made[0])
    for place, (skip, joined) in enumerate(zip(reversed(made), met, strict=True)):
        expected = skip + float(len(made) - place)
        assert torch.equal(joined[:, -skip.shape[1] :], expected)


@pytest.mark.parametrize("size", [3, 8])
def test_a_residual_that_does_not_fit(host: Traced, control: Control, variant: Any, size: int) -> None:
    """It is fitted or left out without an error: nothing but the picture tells."""
    host.txt2img(steps=1)
    width = host.app.modules("shared").sd_model.forge_objects.unet.model.diffusion_model.middle_block
    channels = width[0].out_layers[3].out_channels
    control.residuals = lambda x: {
        "input": [], "middle": [torch.full((len(x), channels, size, size), 5.0)], "output": []
    }  # fmt: skip
    changed = pixels(host.txt2img())
    control.residuals = None
    assert np.array_equal(changed, pixels(host.txt2img())) != variant.resizes_residuals


def test_only_some_call_blocks(host: Traced, control: Control, variant: Any) -> None:
    host.txt2img()
    unet = host.app.modules("shared").sd_model.forge_objects.unet.model.diffusion_model
    called: list[str] = []
    handles = [
        unet.middle_block.register_forward_hook(lambda *_: called.append("block")),
        unet.middle_block[0].register_forward_hook(lambda *_: called.append("layer")),
    ]
    host.txt2img(steps=1)
    for handle in handles:
        handle.remove()
    assert called == (["layer", "block"] if variant.blocks_called else ["layer"])


def test_only_masked(host: Traced, control: Control) -> None:
    image, mask = picture(96, 80), Image.new("L", (96, 80))
    mask.paste(255, (10, 10, 50, 50))
    done = host.img2img(init_images=[image], mask=mask, inpaint_full_res=True, mask_blur=0, inpaint_full_res_padding=4)
    out, before = pixels(done), np.asarray(image)
    assert (out[np.asarray(mask) == 0] == before[np.asarray(mask) == 0]).all()
    assert control.controls()[0]["x"].shape == (2, 4, 8, 8)


def test_inpainting_checkpoints_get_their_channels(host: Traced, control: Control) -> None:
    """Control objects and the U-Net's wrapper get them beside the latent."""
    host.txt2img(override_settings={"sd_model_checkpoint": "painting"}, batch_size=2)
    mask = Image.new("L", (64, 64), 255)
    host.img2img(override_settings={"sd_model_checkpoint": "painting"}, mask=mask, inpaint_full_res=False)
    shapes = [tuple(x["cond"]["c_concat"].shape) for x in control.controls()]
    assert set(shapes) == {(4, 5, 8, 8), (2, 5, 8, 8)}
    assert {x["x"].shape[1] for x in control.controls()} == {4}


def test_jobs_compute_in_inference_mode(host: Traced) -> None:
    modes: list[bool] = []
    for event in ("process", "process_before_every_sampling", "cfg_denoiser", "postprocess_image", "postprocess"):
        host.script["at_event"][event] = lambda _: modes.append(torch.is_inference_mode_enabled())
    host.txt2img(steps=1)
    assert modes == [False, True, True, True, False]


def test_modified_noise_is_used_once(host: Traced) -> None:
    def change(details: dict[str, Any]) -> None:
        details["p"].modified_noise = details["kwargs"]["noise"] * 0.5

    plain = host.txt2img()
    host.script["at_event"]["process_before_every_sampling"] = change
    changed = host.txt2img()
    del host.script["at_event"]["process_before_every_sampling"]
    assert not np.array_equal(pixels(plain), pixels(changed))
    assert np.array_equal(pixels(plain), pixels(host.txt2img()))


def test_memory_is_asked_for_with_what_the_control_object_wants(host: Traced, control: Control, variant: Any) -> None:
    import importlib

    core = "backend.memory_management" if variant.core == "backend" else "ldm_patched.modules.model_management"
    assert importlib.util.find_spec(core.split(".")[0]) is not None
    module = importlib.import_module(core)
    assert set(vars(module)) >= {"load_models_gpu", "free_memory", "get_torch_device"}
    host.txt2img(steps=1)
    loading = importlib.import_module("standalone.forge.memory").loadings[-1]
    assert loading.models[0].list_controlnets() == [control]
    if variant.name == "forge":
        assert loading.further == {"hard_memory_preservation": 1000}


def test_an_error_in_the_unet_ends_the_job_and_the_next_is_clean(host: Traced) -> None:
    before = host.txt2img()
    unet = host.app.modules("shared").sd_model.forge_objects.unet.model.diffusion_model

    def stop(*_: Any) -> None:
        raise RuntimeError("the unit says no")

    handle = unet.register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="the unit says no"):
        host.txt2img()
    handle.remove()
    assert np.array_equal(pixels(before), pixels(host.txt2img()))


def test_before_the_first_job_there_may_be_no_model(app: App, variant: Any) -> None:
    shared, models = app.modules("shared"), app.modules("sd_models")
    loaded, models.model_data.sd_model = models.model_data.sd_model, None
    try:
        assert hasattr(shared.sd_model or object(), "forge_objects") is False
        assert (type(shared.sd_model).__name__ == "FakeInitialModel") != variant.ldm_model
    finally:
        models.model_data.sd_model = loaded


def test_another_checkpoint_is_another_engine(host: Traced, checkpoints: Path) -> None:
    host.txt2img()
    shared = host.app.modules("shared")
    first = shared.sd_model.forge_objects.unet.model
    host.txt2img(override_settings={"sd_model_checkpoint": "second"})
    assert shared.sd_model.forge_objects.unet.model is not first
    assert shared.sd_model.sd_checkpoint_info.name_for_extra == "second"
