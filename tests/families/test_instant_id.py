"""InstantID's two units inside a whole U-Net, against diffusers' U-Net and ControlNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.embeddings import FACE
from lib_controlnet.core.errors import ModelFileError, UnitError
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.schedule import GuidanceRange
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.engine.generation import UnitRun
from lib_controlnet.engine.preprocess import Found, PreprocessResult
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.nets.unet import UNetModel
from tests.engine.test_session import FakeGeneration, FakeSpec, services, unit
from tests.families.driving import called
from tests.families.ip_files import weights_of, write
from tests.nets.ldm_oracle import (
    diffusers_controlnet,
    diffusers_unet,
    example,
    for_diffusers,
    randomise,
    to_diffusers,
    with_sizes,
)
from tests.nets.sizes import SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
CONFIG = replace(SDXL, transformer_depth=(0, 1, 2), middle_depth=2)
SIZES = ControlNetConfig(CONFIG, 3, (16, 32, 96, 256))
PIXELS = 128


def randomised(net: Any, seed: int) -> Any:
    randomise(net, seed)
    return net


def unet() -> UNetModel:
    return randomised(UNetModel(CONFIG), 2)


def net(seed: int) -> dict[str, Tensor]:
    return randomised(ControlNet(SIZES), seed).state_dict()


def model(path: Path) -> Any:
    return load_model(path, CPU, discover())


def net_file(path: Path, seed: int = 4, metadata: dict[str, str] | None = None) -> Path:
    """As published, under diffusers' names."""
    table = {key: value.contiguous() for key, value in to_diffusers(SIZES, net(seed)).items()}
    save_file(table, path, metadata)
    return path


def adapter(tmp_path: Path, seed: int = 5) -> Any:
    return model(write(tmp_path / f"ip{seed}.safetensors", "unnorm", CONFIG, seed=seed))


def face(seed: int = 3) -> Tensor:
    return torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)) * 20.0


def picture(seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)


def told(model: Any, seed: int = 3, **fields: Any) -> tuple[Any, Found, Any, dict[str, Any]]:
    return model, Found(None, None, {FACE: face(seed)}), FakeSpec(returns_image=False), fields


def shown(model: Any, seed: int = 1, points: bool = True, **fields: Any) -> tuple[Any, Found, Any, dict[str, Any]]:
    return model, Found(picture(seed), None, None), FakeSpec(face_points=points), fields


def session(*units: tuple[Any, Found, Any, dict[str, Any]]) -> ControlSession:
    """A pass with a unit for each."""
    generation = FakeGeneration()
    generation.base = BaseModel(CONFIG, "tiny")
    made = ControlSession(services(Path("nowhere")), generation)
    for index, (one, found, spec, fields) in enumerate(units):
        asked = unit(index, **fields)
        guidance = GuidanceRange(asked.guidance_start, asked.guidance_end)
        result = PreprocessResult(found, spec, PIXELS, ())
        made.runs.append(UnitRun(asked, one.path.name, one, [result], ResizeMode.just_resize, guidance, None))
    made.begin(Pass.base, PIXELS, PIXELS)
    return made


def ours(*units: tuple[Any, Found, Any, dict[str, Any]]) -> Tensor:
    inputs = with_sizes(example(CONFIG))
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs["y"], (True, False), (0, 0), 0.5)
    return called(unet(), step, session(*units))


def plain() -> Tensor:
    with torch.no_grad():
        return unet()(**with_sizes(example(CONFIG)))


def tokens(seed: int = 3, file: int = 5) -> Tensor:
    """diffusers' Resampler of the face for the cond row, of zeros for the other."""
    image = weights_of("unnorm", CONFIG, seed=file)["image_proj"]
    resampler = UNet2DConditionModel._convert_ip_adapter_image_proj_to_diffusers(None, image, low_cpu_mem_usage=False)
    with torch.no_grad():
        return resampler.eval()(torch.stack([face(seed), torch.zeros(1, 512)]))


def theirs(nets: list[tuple[int, int, bool, float]], scale: float, seed: int = 3) -> Tensor:
    """nets: (seed of weights, of picture, hears the face, weight)."""
    oracle: Any = diffusers_unet(CONFIG, unet().state_dict())
    oracle._load_ip_adapter_weights([weights_of("unnorm", CONFIG)], low_cpu_mem_usage=False)
    for processor in oracle.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    inputs = for_diffusers(with_sizes(example(CONFIG)))
    down, middle = None, None
    for weights, shows, hears, weight in nets:
        hint = torch.from_numpy(picture(shows)).permute(2, 0, 1)[None].float().div(255).expand(2, -1, -1, -1)
        heard = {**inputs, "encoder_hidden_states": tokens(seed)} if hears else inputs
        with torch.no_grad():
            made = diffusers_controlnet(SIZES, net(weights))(
                **heard, controlnet_cond=hint, conditioning_scale=weight, return_dict=False
            )
        down = made[0] if down is None else [a + b for a, b in zip(down, made[0], strict=True)]
        middle = made[1] if middle is None else middle + made[1]
    added = {
        **inputs["added_cond_kwargs"],
        "image_embeds": [torch.stack([face(seed), torch.zeros(1, 512)])[:, :, None]],
    }
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle} if nets else {}
    with torch.no_grad():
        return oracle(**{**inputs, "added_cond_kwargs": added}, **residuals).sample


def close(mine: Tensor, oracle: Tensor) -> None:
    assert float((oracle - plain()).abs().max()) > 0.02
    assert float((mine - oracle).abs().max() / oracle.abs().max()) < 1e-4


def test_the_adapter_alone_is_diffusers(tmp_path: Path) -> None:
    close(ours(told(adapter(tmp_path), weight=0.8)), theirs([], 0.8))


@pytest.mark.parametrize("order", ["adapter first", "net first"])
def test_both_units_are_diffusers(tmp_path: Path, order: str) -> None:
    units = [told(adapter(tmp_path), weight=0.8), shown(model(net_file(tmp_path / "net.safetensors")), weight=0.7)]
    mine = ours(*(units if order == "adapter first" else units[::-1]))
    close(mine, theirs([(4, 1, True, 0.7)], 0.8))


def test_other_nets_keep_the_prompt(tmp_path: Path) -> None:
    other = shown(model(net_file(tmp_path / "canny.safetensors", 6)), seed=8, points=False, weight=0.5)
    identity = shown(model(net_file(tmp_path / "net.safetensors")), weight=0.7)
    mine = ours(other, told(adapter(tmp_path), weight=0.8), identity)
    close(mine, theirs([(6, 8, False, 0.5), (4, 1, True, 0.7)], 0.8))
    assert not torch.allclose(mine, theirs([(6, 8, True, 0.5), (4, 1, True, 0.7)], 0.8), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "beside", "points", "hears"),
    [
        ("net", None, True, True),
        ("net", None, False, False),
        ("net", "true", False, True),
        ("net", "false", True, False),
        ("control_instant_id_sdxl", None, False, True),
        ("ControlNet-InstantID", "false", False, False),
    ],
)
def test_what_tells_that_a_net_hears_faces(
    tmp_path: Path, name: str, beside: str | None, points: bool, hears: bool
) -> None:
    """What lies beside the file, then the preprocessor, then the names that it is handed on under."""
    path = net_file(tmp_path / f"{name}.safetensors")
    if beside is not None:
        path.with_suffix(".yaml").write_text(f"model:\n  params:\n    face_context: {beside}\n")
    mine = ours(told(adapter(tmp_path)), shown(model(path), points=points))
    close(mine, theirs([(4, 1, hears, 1.0)], 1.0))


def test_the_file_itself_may_say_it(tmp_path: Path) -> None:
    loaded = model(net_file(tmp_path / "net.safetensors", metadata={"face_context": "true"}))
    close(ours(told(adapter(tmp_path)), shown(loaded, points=False)), theirs([(4, 1, True, 1.0)], 1.0))
    with pytest.raises(ModelFileError, match="face_context"):
        model(net_file(tmp_path / "odd.safetensors", metadata={"face_context": "perhaps"}))


def test_a_net_without_a_face_says_what_is_missing(tmp_path: Path) -> None:
    identity = model(net_file(tmp_path / "net.safetensors"))
    base = model(write(tmp_path / "faceid.safetensors", "faceid", CONFIG))
    for others in ([], [told(base)], [told(adapter(tmp_path), weight=0.0)], [shown(identity, points=False)]):
        with pytest.raises(UnitError, match="instant_id_face_embedding") as caught:
            ours(*others, shown(identity))
        assert caught.value.unit == len(others)
        assert caught.value.field == "model"
        assert "net.safetensors" in str(caught.value)


def test_each_net_hears_the_face_before_it(tmp_path: Path) -> None:
    """Two people: a pair of units for each."""
    one, two = adapter(tmp_path), adapter(tmp_path, seed=9)
    identity = model(net_file(tmp_path / "net.safetensors"))
    made = session(told(one, 3), shown(identity), told(two, 7), shown(identity))
    heard = [made.runs[place].bound._face._teller for place in (1, 3)]
    assert heard == [made.runs[0].bound, made.runs[2].bound]


def test_the_tokens_are_made_once_a_pass(tmp_path: Path) -> None:
    calls: list[int] = []
    ip = adapter(tmp_path)
    ip.net.image_proj.register_forward_hook(lambda *_: calls.append(1))
    made = session(told(ip), shown(model(net_file(tmp_path / "net.safetensors"))))
    inputs = with_sizes(example(CONFIG))
    for progress in (0.2, 0.5, 0.9):
        step = Step(inputs["x"], inputs["timesteps"], inputs["context"], inputs["y"], (True, False), (0, 0), progress)
        made.begin_call(step)
        made.done()
    assert len(calls) == 4  # the face and nobody, for the U-Net and for the ControlNet, which may compute beside it


def test_where_the_adapter_has_no_say_the_net_still_hears_it(tmp_path: Path) -> None:
    """Ranges are each unit's own."""
    ip, identity = adapter(tmp_path), model(net_file(tmp_path / "net.safetensors"))
    mine = ours(told(ip, guidance_end=0.2), shown(identity))
    close(mine, theirs([(4, 1, True, 1.0)], 0.0))


def test_pieces_are_refused(tmp_path: Path) -> None:
    made = session(told(adapter(tmp_path)), shown(model(net_file(tmp_path / "net.safetensors"))))
    assert not made.runs[1].bound.piecewise
