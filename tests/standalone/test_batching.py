"""How many U-Net calls one denoiser call makes, with which rows; and how many denoiser calls a sampler makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.standalone.conftest import Traced, pixels

LONG = ", ".join(["a red heart on a green table"] * 15)


@pytest.fixture
def calls(host: Traced) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of each U-Net call."""
    seen: list[tuple[int, int]] = []
    unet = host.app.modules("shared").sd_model.model.diffusion_model

    def look(_module: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        seen.append((args[0].shape[0], kwargs["context"].shape[1]))

    handle = unet.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    handle.remove()


def one_step(host: Traced, **settings: object) -> None:
    host.txt2img(steps=1, batch_size=2, **settings)


def test_rows_of_equal_length_go_together(host: Traced, calls: list[tuple[int, int]]) -> None:
    one_step(host)
    assert calls == [(4, 77)]


def test_unbatched_rows_go_in_image_counts(host: Traced, calls: list[tuple[int, int]]) -> None:
    host.options(batch_cond_uncond=False)
    one_step(host)
    assert calls == [(2, 77), (2, 77)]


def test_unequal_lengths_part_conds_from_unconds(host: Traced, calls: list[tuple[int, int]]) -> None:
    one_step(host, prompt=LONG)
    assert calls == [(2, 154), (2, 77)]


def test_and_prompts_repeat_the_image(host: Traced, calls: list[tuple[int, int]]) -> None:
    one_step(host, prompt="a heart AND a table AND red :0.5")
    assert calls == [(8, 77)]


def test_many_unequal_rows_come_in_chunks(host: Traced, calls: list[tuple[int, int]]) -> None:
    one_step(host, prompt=f"{LONG} AND a AND b AND c AND d")
    assert calls == [(4, 154), (4, 154), (2, 154), (2, 77)]


def test_unequal_and_unbatched(host: Traced, calls: list[tuple[int, int]]) -> None:
    host.options(batch_cond_uncond=False)
    one_step(host, prompt=f"{LONG} AND a")
    assert calls == [(2, 154), (2, 154), (2, 77)]


@pytest.mark.parametrize("option", ["pad_cond_uncond", "pad_cond_uncond_v0"])
def test_padding_makes_lengths_equal(host: Traced, calls: list[tuple[int, int]], option: str) -> None:
    host.options(**{option: True})
    one_step(host, prompt=LONG)
    assert calls == [(4, 154)]


def test_skipping_the_early_uncond_leaves_its_rows_out(host: Traced, calls: list[tuple[int, int]]) -> None:
    host.options(skip_early_cond=0.3)
    host.txt2img(steps=4)
    assert calls == [(1, 77), (1, 77), (2, 77), (2, 77)]


def test_ngms_skips_every_other_late_step(host: Traced, calls: list[tuple[int, int]]) -> None:
    host.txt2img(steps=4, s_min_uncond=100.0)
    assert calls == [(2, 77), (1, 77), (2, 77), (1, 77)]


def test_conds_come_first(host: Traced) -> None:
    """The first rows carry the prompt: with the negative prompt changed, only the last rows differ."""
    contexts = []
    unet = host.app.modules("shared").sd_model.model.diffusion_model
    handle = unet.register_forward_pre_hook(lambda _m, _a, kw: contexts.append(kw["context"].clone()), with_kwargs=True)
    for negative in ("blue", "green"):
        one_step(host, negative_prompt=negative)
    handle.remove()

    same = (contexts[0] == contexts[1]).flatten(1).all(1)
    assert same.tolist() == [True, True, False, False]


def test_callbacks_see_all_rows_and_may_replace_them(host: Traced) -> None:
    plain = pixels(host.txt2img())

    def mute(details: dict[str, object]) -> None:
        params = details["params"]
        assert params.x.shape[0] == params.sigma.shape[0] == 2  # type: ignore[attr-defined]
        params.x = torch.zeros_like(params.x)  # type: ignore[attr-defined]

    host.script["at_event"]["cfg_denoiser"] = mute
    assert (pixels(host.txt2img()) != plain).any()


CALLS = {
    "Euler": 10, "Euler a": 10, "LMS": 10, "DPM++ 2M": 10, "DPM++ 3M SDE": 10, "DPM++ 2M SDE": 10, "Heun": 19,
    "DPM2": 19, "DPM2 a": 19, "DPM++ SDE": 19, "DPM++ 2S a": 19, "DDIM": 9, "UniPC": 10, "PLMS": 10, "DPM fast": 10,
    "Restart": 19, "LCM": 10,
}  # fmt: skip


@pytest.mark.parametrize("sampler", CALLS)
def test_denoiser_calls_of_ten_steps(host: Traced, sampler: str) -> None:
    """As counted in the real host."""
    host.txt2img(steps=10, sampler_name=sampler, width=32, height=32)

    params = [x["params"] for x in host.details("cfg_denoiser")]
    assert len(params) == CALLS[sampler]
    second_order = sampler in ("Heun", "DPM2", "DPM2 a", "DPM++ SDE", "DPM++ 2S a", "Restart")
    denoiser = params[-1].denoiser
    assert denoiser.step == CALLS[sampler]
    assert denoiser.total_steps == (20 if second_order else 10)


def test_dpm_adaptive_makes_more_calls_than_steps(host: Traced) -> None:
    host.txt2img(steps=3, sampler_name="DPM adaptive", width=16, height=16)
    denoiser = host.details("cfg_denoiser")[-1]["params"].denoiser
    assert denoiser.step > denoiser.total_steps


@pytest.mark.parametrize(("sampler", "expected"), [("Euler", 8), ("DDIM", 6), ("UniPC", 7)])
def test_img2img_runs_the_last_part(host: Traced, sampler: str, expected: int) -> None:
    host.img2img(steps=10, denoising_strength=0.75, sampler_name=sampler)
    assert host.names().count("cfg_denoiser") == expected


@pytest.mark.parametrize(("sampler", "first"), [("Euler", 999.0), ("DDIM", 901.0), ("UniPC", 999.0)])
def test_first_timestep(host: Traced, sampler: str, first: float) -> None:
    seen: list[float] = []
    unet = host.app.modules("shared").sd_model.model.diffusion_model
    handle = unet.register_forward_pre_hook(lambda _m, args: seen.append(float(args[1][0])))
    host.txt2img(steps=10, sampler_name=sampler)
    handle.remove()
    assert seen[0] == pytest.approx(first, abs=0.01)


def test_sampling_step_lags_behind_the_denoisers_own_count(host: Traced) -> None:
    host.txt2img(steps=4)
    params = [x["params"] for x in host.details("cfg_denoiser")]
    assert [x.sampling_step for x in params] == [0, 0, 1, 2]


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM"])
def test_a_batch_gives_the_pictures_of_single_jobs(host: Traced, sampler: str) -> None:
    settings = {"sampler_name": sampler, "steps": 3, "eta": 1.0}
    batch = host.txt2img(seed=5, batch_size=2, **settings)
    single = host.txt2img(seed=6, **settings)
    offset = batch.index_of_first_image
    difference = pixels(batch, offset + 1).astype(int) - pixels(single)
    assert abs(difference).max() <= 1
    assert (pixels(batch, offset) != pixels(batch, offset + 1)).any()


@pytest.mark.parametrize("size", [(72, 104), (100, 130)])
def test_odd_sizes(host: Traced, size: tuple[int, int]) -> None:
    done = host.txt2img(width=size[0], height=size[1])
    assert done.images[0].size == (size[0] // 8 * 8, size[1] // 8 * 8)
