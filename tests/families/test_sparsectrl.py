"""SparseCtrl of one frame and of films against diffusers' model, in every naming, and how its files are known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SparseControlNetModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from lib_controlnet.core.checkpoint import Checkpoint
from lib_controlnet.core.errors import BaseModelError, HostError, ModelFileError
from lib_controlnet.core.frames import Film
from lib_controlnet.core.hints import Hint, hint_from_map
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, OwnControl, Runtime
from lib_controlnet.families.registry import discover, load_model
from lib_controlnet.loading.canonical import canonical
from tests.families.driving import session_of, session_with, settings
from tests.families.test_lllite import call, error
from tests.families.test_t2i_adapter import picture
from tests.nets.ldm_oracle import randomise
from tests.nets.sizes import SD1, SDXL

CPU = Runtime(torch.device("cpu"), torch.float32)
KINDS = ("rgb", "scribble")
CROP = ResizeMode.crop_and_resize


def reference(kind: str) -> SparseControlNetModel:
    net = SparseControlNetModel(
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=48,
        conditioning_channels=4 if kind == "rgb" else 3,
        use_simplified_condition_embedding=kind == "rgb",
        conditioning_embedding_out_channels=(8, 8, 16, 16),
    )
    randomise(net, seed=5)
    for module in net.modules():
        if hasattr(module, "pe"):
            module.pe.copy_(torch.randn(module.pe.shape, generator=torch.Generator().manual_seed(6)))
    return net


def animatediff(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original naming of the layers over time."""

    parts = {
        "pos_embed.pe": "attention_blocks.0.pos_encoder.pe",
        "attn1.": "attention_blocks.0.",
        "norm1.": "norms.0.",
        "norm3.": "ff_norm.",
    }

    def name(key: str) -> str:
        if "motion_modules" not in key:
            return key
        for ours, theirs in parts.items():
            key = key.replace(f"transformer_blocks.0.{ours}", f"transformer_blocks.0.{theirs}")
        return re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key)

    return {name(key): value for key, value in weights.items()}


def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """LDM's names with diffusers' hint encoder under them, as sd-webui-controlnet's files have it."""
    ldm = dict(canonical(animatediff(weights)))
    places = ["conv_in", *(f"blocks.{index}" for index in range(6)), "conv_out"]
    for index, name in enumerate(places):
        for leaf in ("weight", "bias"):
            ldm[f"input_hint_block.0.{name}.{leaf}"] = ldm.pop(f"input_hint_block.{2 * index}.{leaf}")
    return ldm


def loaded(folder: Path, weights: dict[str, Tensor]) -> Any:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "net.safetensors")
    return load_model(folder / "net.safetensors", CPU, discover())


def checkpoint() -> Checkpoint:
    def encode(pixels: Tensor) -> Tensor:
        small = functional.avg_pool2d(pixels, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)

    return Checkpoint(torch.linspace(0.99, 0.01, 1000), False, encode, 1)


@pytest.mark.parametrize("naming", ["diffusers", "animatediff", "converted", "wrapped"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_residuals_of_one_frame_are_diffusers(tmp_path: Path, kind: str, naming: str) -> None:
    now, hint, net = call(SD1, (200, 136)), picture(200, 136), reference(kind)
    weights = dict(net.state_dict())
    if naming == "animatediff":
        weights = animatediff(weights)
    if naming == "converted" and kind == "scribble":
        weights = converted(weights)
    if naming == "wrapped":
        weights = {f"controlnet.{key}": value for key, value in animatediff(weights).items()}
    model = loaded(tmp_path, weights)
    model.check(BaseModel(SD1, "tiny"))
    bound = model.bind([hint], settings(SD1, checkpoint=checkpoint))
    control = session_of(bound, size=(200, 136), outputs=13, weight=0.8).begin_call(now)[1]
    given = checkpoint().latents([hint]) if kind == "rgb" else hint.image
    theirs = net(
        now.x[:, :, None],
        now.timesteps,
        now.context,
        controlnet_cond=given.expand(2, -1, -1, -1)[:, :, None],
        conditioning_mask=torch.ones(2, 1, 1, *given.shape[2:]),
        conditioning_scale=0.8,
    )
    assert control is not None
    outputs = [*theirs.down_block_res_samples, theirs.mid_block_res_sample]
    for ours, one in zip(control.outputs(), outputs, strict=True):
        assert one.std() > 0.01
        assert error(ours, one) < 1e-4


@torch.no_grad()
def test_what_is_drawn_is_not_seen_and_each_picture_has_its_own(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(reference("scribble").state_dict()))
    now = call(SD1, images=(0, 1, 0, 1))
    hints = [picture(64, 64), Hint(torch.rand(1, 3, 64, 64), None, picture(64, 64).display)]
    control = session_of(model.bind(hints, settings(SD1)), outputs=13).begin_call(now)[1]
    other = session_of(model.bind(hints, settings(SD1)), outputs=13).begin_call(replace(now, x=now.x * 3))[1]
    assert control is not None
    assert other is not None
    for one, two in zip(control.outputs(), other.outputs(), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda w: w.pop("down_blocks.1.motion_modules.0.proj_out.bias"),
            r"missing: input_blocks\.4\.motion\.proj_out",
        ),
        (lambda w: w.update(extra=torch.ones(1)), "not part of the network: extra"),
        (lambda w: w.pop("controlnet_mid_block.bias"), r"missing: middle_block_out\.0\.bias"),
    ],
)
def test_files_are_whole_or_refused(tmp_path: Path, change: Any, words: str) -> None:
    weights = dict(reference("rgb").state_dict())
    change(weights)
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_which_checkpoints_fit_is_known_before_loading(tmp_path: Path, kind: str) -> None:
    model = loaded(tmp_path, dict(reference(kind).state_dict()))
    facts = FactReader(discover()).read(tmp_path / "net.safetensors")
    assert (facts.family, facts.kind) == ("sparsectrl", "a SparseCtrl model")
    assert facts.mismatch(BaseModel(SD1, "tiny")) == ""
    assert facts.mismatch(BaseModel(SDXL, "tiny"))
    with pytest.raises(BaseModelError, match="cannot control"):
        model.check(BaseModel(SDXL, "tiny"))


def frame_by_frame(net: SparseControlNetModel) -> SparseControlNetModel:
    """diffusers' motion modules normalise the frames of a film together; the authors' do so one by one."""
    for module in net.modules():
        if type(module).__name__ == "AnimateDiffTransformer3D":
            plain = module.norm.forward

            def each(x: Tensor, plain: Any = plain) -> Tensor:  # (films, C, frames, h, w)
                flat = plain(x.transpose(1, 2).flatten(0, 1))
                return flat.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)

            module.norm.forward = each
    return net


FILM_ROWS = (0, 1, 2, 3, 0, 1, 2, 3)


@pytest.mark.parametrize("keys", [(), (1, 3), None], ids=["all", "keys", "first"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_residuals_of_a_film_are_diffusers(tmp_path: Path, kind: str, keys: tuple[int, ...] | None) -> None:
    net = frame_by_frame(reference(kind))
    model = loaded(tmp_path, dict(net.state_dict()))
    now = call(SD1, (64, 64), images=FILM_ROWS)
    now = replace(now, timesteps=torch.full_like(now.timesteps, 500))
    count = 1 if keys is None else 4
    drawn = [hint_from_map(picture(64 * count, 64).display[:, 64 * at :][:, :64], 64, 64, CROP) for at in range(count)]
    film = Film(4, keys or ())
    bound = model.bind(drawn, settings(SD1, checkpoint=checkpoint, film=film))
    control = session_of(bound, size=(64, 64), outputs=13).begin_call(now)[1]
    given = torch.cat([checkpoint().latents([hint]) if kind == "rgb" else hint.image for hint in drawn])
    where = torch.zeros(4, 1, *given.shape[2:])
    where[list((0,) if keys is None else keys or range(4))] = 1.0
    hints = given.expand(4, -1, -1, -1) * where
    theirs = net(
        now.x.unflatten(0, (2, 4)).transpose(1, 2),
        now.timesteps[:: len(FILM_ROWS) // 2],
        now.context,
        controlnet_cond=torch.stack([hints, hints]).transpose(1, 2),
        conditioning_mask=torch.stack([where, where]).transpose(1, 2),
    )
    assert control is not None
    outputs = [*theirs.down_block_res_samples, theirs.mid_block_res_sample]
    for ours, one in zip(control.outputs(), outputs, strict=True):
        assert one.std() > 0.01
        assert error(ours, one) < 1e-4
    assert not torch.equal(outputs[-1][0], outputs[-1][1])


@torch.no_grad()
def test_where_only_cond_rows_are_computed_the_frames_keep_their_order(tmp_path: Path) -> None:
    """Reuse control, in a window that goes on from the last frame to the first. Nothing changes from call to call."""
    model = loaded(tmp_path, dict(reference("scribble").state_dict()))
    drawn = [hint_from_map(picture(256, 64).display[:, 64 * at :][:, :64], 64, 64, CROP) for at in range(4)]
    bound = model.bind(drawn, settings(SD1, film=Film(4)))
    given = OwnControl("given", lambda _hints, _settings: bound)
    given.outputs, given.reusable = 13, True
    session = session_with([given], size=(64, 64), reuse_control=1.0)
    now = call(SD1, (64, 64), images=(2, 3, 0, 1) * 2)
    now = replace(now, is_cond=(True,) * 4 + (False,) * 4, timesteps=torch.full_like(now.timesteps, 500), planned=20)
    rows: list[int] = []
    model.net.register_forward_hook(lambda _net, args, _out: rows.append(len(args[3])))
    found: list[list[Tensor]] = []
    for turn in range(1, 7):
        control = session.begin_call(replace(now, turn=turn))[1]
        session.done()
        assert control is not None
        found.append(list(control.outputs()))
    assert rows == [8, 8, 4]
    assert all(error(half, whole) < 1e-4 for half, whole in zip(found[5], found[1], strict=True))


def test_a_window_longer_than_the_file_knows_is_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path, dict(reference("scribble").state_dict()))
    bound = model.bind([picture(64, 64)], settings(SD1, film=Film(40)))
    with pytest.raises(HostError, match="at most 32 frames"):
        session_of(bound, outputs=13).begin_call(call(SD1, images=tuple(range(40))))
    with pytest.raises(HostError, match="whole films"):
        session_of(bound, outputs=13).begin_call(call(SD1, images=(0, 0, 1, 1)))
