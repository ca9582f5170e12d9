"""Sizes, masks, noise, infotext, and what is refused when files are read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.standalone.conftest import Traced, picture, pixels


def test_resize_modes(host: Traced) -> None:
    resize = host.app.modules("images").resize_image
    image = Image.new("RGB", (40, 20), (10, 200, 30))
    stretched, cut, filled = (resize(mode, image, 32, 32) for mode in range(3))
    assert stretched.size == cut.size == filled.size == (32, 32)
    assert np.asarray(filled).min(axis=(0, 1)).tolist() == [10, 200, 30]  # the edge is continued, no black bars
    noise = picture(48, 16)
    assert (np.asarray(resize(1, noise, 16, 16)) == np.asarray(noise)[:, 16:32]).all()


def test_crop_regions(host: Traced) -> None:
    masking = host.app.modules("masking")
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 50:90] = 255
    assert masking.get_crop_region_v2(mask, 8) == (42, 32, 98, 68)
    assert masking.get_crop_region_v2(mask * 0, 8) is None
    assert masking.get_crop_region(mask * 0, 8) == (192, 92, 8, 8)
    assert masking.expand_crop_region((42, 32, 98, 68), 64, 64, 200, 100) == (42, 22, 98, 78)
    assert masking.expand_crop_region((0, 0, 10, 100), 64, 64, 200, 100) == (0, 0, 100, 100)


def test_only_masked_leaves_the_rest_untouched(host: Traced) -> None:
    image = picture(120, 96)
    mask = Image.new("L", image.size)
    mask.paste(255, (40, 30, 70, 60))
    done = host.img2img(init_images=[image], mask=mask, inpaint_full_res=1, inpaint_full_res_padding=4, mask_blur=0)

    out, before = pixels(done), np.asarray(image)
    assert out.shape == before.shape
    inside = np.asarray(mask) > 0
    assert (out[~inside] == before[~inside]).all()
    assert (out[inside] != before[inside]).any()


def test_black_mask_becomes_plain_img2img(host: Traced) -> None:
    done = host.img2img(mask=Image.new("L", (64, 64)), inpaint_full_res=True)
    assert "mask is blank" in done.comments
    assert "Inpaint area" not in done.infotexts[0]


def test_fewer_init_images_than_the_batch_shrink_it(host: Traced) -> None:
    done = host.img2img(init_images=[picture(), picture()], batch_size=3)
    assert len(done.images) - done.index_of_first_image == 2


def test_nv_noise_is_cudas(host: Traced) -> None:
    """Numbers of torch.randn on CUDA with seed 0, as the real host documents them."""
    host.options(randn_source="NV")
    found = host.app.modules("rng").ImageRNG((1, 3, 4), [0]).next()
    expected = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564]
    assert found.flatten()[:6].tolist() == pytest.approx(expected, abs=1e-5)


def test_noise_depends_on_the_seed_alone(host: Traced) -> None:
    rng = host.app.modules("rng")
    both = rng.ImageRNG((4, 8, 8), [1, 2])
    alone = rng.ImageRNG((4, 8, 8), [2])
    for _ in range(2):
        assert torch.equal(both.next()[1], alone.next()[0])
    assert torch.equal(
        rng.ImageRNG((4, 8, 8), [2]).next()[0], torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    )


def test_variation_strength_blends_seeds(host: Traced) -> None:
    rng = host.app.modules("rng")
    ends = [rng.ImageRNG((4, 8, 8), [seed]).next() for seed in (1, 2)]
    for strength, end in ((1e-6, ends[0]), (1.0, ends[1])):
        made = rng.ImageRNG((4, 8, 8), [1], subseeds=[2], subseed_strength=strength).next()
        assert torch.allclose(made, end, atol=1e-4)


def test_infotext_survives_writing_and_reading(host: Traced) -> None:
    text = host.app.modules("infotext_utils")
    host.script["at_event"]["process"] = lambda d: d["p"].extra_generation_params.update(
        {"ControlNet 0": 'Module: "a", x: 1'}
    )
    done = host.txt2img(prompt="a heart, (red:1.2)", steps=3, seed=77)
    params = text.parse_generation_parameters(done.infotexts[0])

    expected = {"Prompt": "a heart, (red:1.2)", "Negative prompt": "blue", "Steps": "3", "Seed": "77", "Size-1": "64"}
    assert {k: params[k] for k in expected} == expected
    assert params["ControlNet 0"] == 'Module: "a", x: 1'
    assert done.images[0].info["parameters"] == done.infotexts[0]


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_saved_pictures_carry_the_infotext(host: Traced, tmp_path: Path, extension: str) -> None:
    images = host.app.modules("images")
    file, _ = images.save_image(picture(), str(tmp_path), "", 5, "a: b", extension, info="ein Bild ü, Steps: 1")
    assert images.read_info_from_image(images.read(file))[0] == "ein Bild ü, Steps: 1"


def test_jobs_save_when_asked(host: Traced, tmp_path: Path) -> None:
    host.options(outdir_samples=str(tmp_path), outdir_grids=str(tmp_path), save_to_dirs=False, grid_save_to_dirs=False)
    host.txt2img(do_not_save_samples=False, do_not_save_grid=False, batch_size=2)
    names = sorted(x.name for x in tmp_path.iterdir())
    assert [x.split("-")[0] for x in names] == ["00000", "00001", "grid"]


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_torch_load_gives_none_for_pickles_with_code(host: Traced, tmp_path: Path, capsys: Any) -> None:
    good, bad, raw = tmp_path / "good.pt", tmp_path / "bad.pt", tmp_path / "raw.pkl"
    torch.save({"a": torch.ones(2)}, good)
    torch.save({"a": Bomb()}, bad)
    raw.write_bytes(pickle.dumps(Bomb()))

    assert torch.equal(torch.load(good)["a"], torch.ones(2))
    assert torch.load(bad) is None
    assert torch.load(raw) is None
    assert "executed" not in capsys.readouterr().out
    assert host.app.modules("errors").exception_records


def test_extra_names_can_be_allowed(host: Traced, tmp_path: Path) -> None:
    safe = host.app.modules("safe")
    file = tmp_path / "double.pt"
    torch.save({"a": np.float64(3)}, file)
    allowed = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype")}

    def handler(module: str, name: str) -> Any:
        return __import__(module, fromlist=[name]).__dict__.get(name) if (module, name) in allowed else None

    with safe.Extra(handler):
        loaded = torch.load(file)
    assert float(loaded["a"]) == 3


@pytest.mark.parametrize("options", [{}, {"weights_only": True}])
def test_a_program_never_reaches_pytorchs_loader(
    host: Traced, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the check before it is got round: PyTorch before 2.6 would run it."""
    safe = host.app.modules("safe")
    file = tmp_path / "program.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    monkeypatch.setattr(safe, "check_pt", lambda *_: None)
    monkeypatch.setattr(safe, "unsafe_torch_load", lambda *_args, **_options: pytest.fail("it was reached"))
    assert torch.load(file, **options) is None
