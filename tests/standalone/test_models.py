"""Checkpoints: read against the libraries' own models, swapped in all three ways, moved by medvram."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from standalone import App, boot
from tests.standalone import tiny_checkpoint
from tests.standalone.conftest import Traced, pixels


def load(host: Traced, name: str) -> Any:
    """Make the checkpoint of this name the chosen and current one."""
    models = host.app.modules("sd_models")
    host.options(sd_model_checkpoint=models.get_closet_checkpoint_match(name).title)
    return models.reload_model_weights()


def test_vae_and_text_encoder_are_the_libraries_models_with_the_files_weights(host: Traced) -> None:
    weights = tiny_checkpoint.weights(seed=0)
    vae, text = tiny_checkpoint.random_vae(), tiny_checkpoint.random_text_model()
    to_ldm = {k: tiny_checkpoint._ldm_vae_key(k) for k in vae.state_dict()}
    vae.load_state_dict(
        {k: weights[f"first_stage_model.{v}"].reshape(vae.state_dict()[k].shape) for k, v in to_ldm.items()}
    )
    prefix = "" if hasattr(text, "text_model") else "text_model."
    text.load_state_dict({k: weights[f"cond_stage_model.transformer.{prefix}{k}"] for k in text.state_dict()})
    model = host.app.modules("shared").sd_model
    with torch.no_grad():
        x = torch.rand(1, 3, 32, 32) * 2 - 1
        assert torch.equal(model.encode_first_stage(x).mode(), vae.encode(x).latent_dist.mode())
        z = torch.randn(1, 4, 4, 4)
        assert torch.allclose(model.decode_first_stage(z * 0.18215), vae.decode(z).sample, atol=1e-5)
        tokens = [49406, 320, 2368, *[49407] * 74]
        expected = text(torch.tensor([tokens])).last_hidden_state
        assert torch.allclose(model.get_learned_conditioning(["a cat"]), expected, atol=1e-5)


def test_schedule_is_stable_diffusions(host: Traced) -> None:
    alphas = host.app.modules("shared").sd_model.alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(alphas, torch.cumprod(1 - betas, 0).float())


def test_same_structure_keeps_the_modules(host: Traced) -> None:
    before = host.app.modules("shared").sd_model
    unet, first = before.model.diffusion_model, pixels(host.txt2img())
    host.forget()
    after = load(host, "second")

    assert after is before
    assert after.model.diffusion_model is unet
    assert host.names() == ["model_loaded"]
    assert (pixels(host.txt2img()) != first).any()
    load(host, "first")
    assert (pixels(host.txt2img()) == first).all()


def test_another_structure_is_a_new_object_and_the_old_one_is_emptied(host: Traced) -> None:
    before = host.app.modules("shared").sd_model
    old_unet = before.model.diffusion_model
    after = load(host, "wide")

    assert after is not before
    assert next(old_unet.parameters()).is_meta
    assert next(after.model.diffusion_model.parameters()).device.type == "cpu"
    assert host.txt2img().images
    load(host, "first")


def test_a_kept_model_comes_back_without_a_callback(host: Traced) -> None:
    host.options(sd_checkpoints_limit=2)
    first = load(host, "first")
    second = load(host, "second")
    host.forget()
    again = load(host, "first")

    assert second is not first
    assert again is first
    assert host.names() == []
    assert host.txt2img().images
    host.options(sd_checkpoints_limit=1)
    load(host, "second")
    load(host, "first")


def test_checkpoint_of_a_job_is_loaded_before_process_and_left_there(host: Traced) -> None:
    seen = []
    shared = host.app.modules("shared")
    for event in ("before_process", "process"):
        host.script["at_event"][event] = lambda _d: seen.append(shared.sd_model.sd_checkpoint_info.name_for_extra)
    host.txt2img(override_settings={"sd_model_checkpoint": "second"})
    host.txt2img()

    assert seen == ["first", "second", "second", "first"]


def test_refiner_swaps_in_the_middle_of_sampling(host: Traced) -> None:
    names = []
    shared = host.app.modules("shared")
    unet = shared.sd_model.model.diffusion_model
    host.script["at_event"]["cfg_denoiser"] = lambda _d: names.append(shared.sd_model.sd_checkpoint_info.name_for_extra)
    done = host.txt2img(steps=6, refiner_checkpoint="wide", refiner_switch_at=0.5)

    assert names[0] == "first"
    assert names[-1] == "wide"
    assert next(unet.parameters()).is_meta
    assert "Refiner: wide" in done.infotexts[-1]
    load(host, "first")


def test_hires_pass_with_its_own_checkpoint(host: Traced) -> None:
    names = []
    shared = host.app.modules("shared")
    event = host.script["at_event"]
    event["process_before_every_sampling"] = lambda _d: names.append(shared.sd_model.sd_checkpoint_info.name_for_extra)
    host.txt2img(enable_hr=True, hr_scale=1.5, hr_checkpoint_name="second")
    host.txt2img()

    assert names == ["first", "second", "first"]


def test_a_file_that_is_no_checkpoint_says_what_is_missing(host: Traced, checkpoints: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoints / "first.safetensors")
    build = host.app.modules("sd_latent_diffusion")
    settings = {"parameterization": "eps", "scale_factor": 0.18215}
    for prefix, message in (("first_stage_model.", "no VAE"), ("cond_stage_model.", "text encoder")):
        part = {k: v for k, v in weights.items() if not k.startswith(prefix)}
        with pytest.raises(ValueError, match=message):
            build.build(part, settings, host.app.modules("sd_hijack").model_hijack)
    file = tmp_path / "broken.safetensors"
    save_file({k: v for k, v in weights.items() if "middle_block.0.in_layers" not in k}, file)
    with pytest.raises(Exception, match="middle_block"):
        build.build(load_file(file), settings, host.app.modules("sd_hijack").model_hijack)


def test_pickled_checkpoint_gives_the_same_picture(host: Traced, checkpoints: Path) -> None:
    from safetensors.torch import load_file

    expected = pixels(host.txt2img())
    file = checkpoints / "pickled.ckpt"
    torch.save({"state_dict": load_file(checkpoints / "first.safetensors")}, file)
    host.app.modules("sd_models").list_models()
    load(host, "pickled")
    assert (pixels(host.txt2img()) == expected).all()
    file.unlink()
    host.app.modules("sd_models").list_models()
    load(host, "first")


def test_a_sidecar_names_scale_and_prediction(host: Traced, checkpoints: Path, tmp_path: Path) -> None:
    file = tmp_path / "named.safetensors"
    shutil.copy(checkpoints / "first.safetensors", file)
    read = host.app.modules("sd_latent_diffusion").settings_of
    assert read(str(file), {}) == {"parameterization": "eps", "scale_factor": 0.18215}
    file.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: v\n    scale_factor: 0.5\n")
    assert read(str(file), {}) == {"parameterization": "v", "scale_factor": 0.5}


def test_alternative_unet_puts_the_built_in_one_aside(host: Traced) -> None:
    sd_unet = host.app.modules("sd_unet")

    class Option(sd_unet.SdUnetOption):
        model_name, label = "first", "other"

        def create_unet(self) -> Any:
            return sd_unet.SdUnet()

    sd_unet.unet_options.append(Option())
    sd_unet.apply_unet("other")
    assert sd_unet.current_unet is not None
    sd_unet.apply_unet("None")
    sd_unet.unet_options.clear()
    assert sd_unet.current_unet is None


@pytest.mark.parametrize(("option", "hooked"), [("--medvram", "model"), ("--lowvram", "diffusion_model.time_embed")])
def test_medvram_moves_whole_parts_and_lowvram_blocks(app: App, checkpoints: Path, option: str, hooked: str) -> None:
    """The hooks sit where extensions must expect them; on a CPU the move itself changes nothing."""
    lowvram, shared = app.modules("lowvram"), app.modules("shared")
    sd_models = app.modules("sd_models")
    kept = sd_models.model_data.sd_model
    weights = sd_models.read_state_dict(str(checkpoints / "first.safetensors"))
    build = app.modules("sd_latent_diffusion")
    settings = {"parameterization": "eps", "scale_factor": 0.18215}
    model = build.build(weights, settings, app.modules("sd_hijack").model_hijack)
    lowvram.setup_for_low_vram(model, use_medvram=option == "--medvram")
    try:
        target = model.model if hooked == "model" else model.model.diffusion_model.time_embed
        assert len(target._forward_pre_hooks) == 1
        assert not (model.model.diffusion_model._forward_pre_hooks)
        model.get_learned_conditioning([""])
        assert lowvram.module_in_gpu is model.cond_stage_model.transformer
        x = torch.zeros(1, 4, 8, 8)
        model.apply_model(x, torch.tensor([1.0]), {"c_crossattn": [torch.zeros(1, 77, 64)]})
        assert lowvram.module_in_gpu is not model.cond_stage_model.transformer
        model.encode_first_stage(torch.zeros(1, 3, 64, 64))
        assert lowvram.module_in_gpu is model.first_stage_model
    finally:
        lowvram.send_everything_to_cpu()
        sd_models.model_data.sd_model = kept
    assert shared.sd_model is kept


def test_inpainting_checkpoint_gets_mask_and_picture(checkpoints: Path, app: App) -> None:
    weights = tiny_checkpoint.weights(seed=4, in_channels=9)
    build = app.modules("sd_latent_diffusion")
    model = build.build(
        weights, {"parameterization": "eps", "scale_factor": 0.18215}, app.modules("sd_hijack").model_hijack
    )
    assert model.model.conditioning_key == "hybrid"
    seen: list[torch.Tensor] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    x, extra = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 8, 8)
    model.apply_model(x, torch.tensor([1.0]), {"c_crossattn": [torch.zeros(1, 77, 64)], "c_concat": [extra]})
    assert torch.equal(seen[0], torch.cat([x, extra], 1))


def test_two_hosts_at_once_are_refused(app: App, checkpoints: Path) -> None:
    with pytest.raises(RuntimeError, match="close it first"):
        boot(checkpoints / "first.safetensors", extension_dirs=[], api=False, ui=False)


def test_a_nested_host_leaves_the_older_one_as_it_was(host: Traced, checkpoints: Path, tmp_path: Path) -> None:
    expected, shared, load_before = pixels(host.txt2img()), host.app.modules("shared"), torch.load
    settings = {"data_dir": tmp_path, "extension_dirs": [], "api": False, "ui": False}
    with boot(checkpoints / "second.safetensors", nested=True, **settings) as younger:
        assert younger.modules("shared") is not shared
        with pytest.raises(RuntimeError, match="younger"):
            host.app._environment.leave([])
    assert host.app.modules("shared") is shared
    assert torch.load is load_before
    assert (pixels(host.txt2img()) == expected).all()


def test_pictures_are_numbers_in_range(host: Traced) -> None:
    array = pixels(host.txt2img())
    assert array.dtype == np.uint8
    assert array.shape == (64, 64, 3)
    assert array.std() > 1
