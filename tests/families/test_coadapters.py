"""Style adapters and CoAdapters in calls of a session, against TencentARC's formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.errors import BaseModelError, ModelFileError, PreprocessorError
from lib_controlnet.engine.facts import FactReader
from lib_controlnet.families.base import BaseModel, Runtime
from lib_controlnet.families.registry import discover, load_model
from tests.families.driving import conditioned, hooked, session_of, settings
from tests.families.test_lllite import call, error, plain, unet_of
from tests.families.test_t2i_adapter import picture, reference
from tests.nets.coadapter_reference import ReferenceFuser, ReferenceStyle
from tests.nets.ldm_oracle import randomise
from tests.nets.sizes import SD1, SD2

CPU = Runtime(torch.device("cpu"), torch.float32)
WIDTH = 64
CHANNELS = [32, 64, 128, 128]


def style() -> ReferenceStyle:
    net = ReferenceStyle(WIDTH, SD1.context_dim)
    randomise(net, seed=3)
    return net


def fuser() -> ReferenceFuser:
    net = ReferenceFuser(CHANNELS, SD1.context_dim)
    randomise(net, seed=4)
    return net


def seen(seed: int = 1) -> Tensor:
    return torch.randn(1, 17, WIDTH, generator=torch.Generator().manual_seed(seed))


def loaded(path: Path, weights: dict[str, Tensor]) -> Any:
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return load_model(path, CPU, discover())


def told(*pictures: Tensor, **changes: Any) -> Any:
    return settings(SD1, tensors=[{"last_hidden_state": each} for each in pictures], **changes)


@torch.no_grad()
def test_the_prompts_rows_hear_the_style_and_the_others_themselves(tmp_path: Path) -> None:
    """Branch SD, ldm/models/diffusion/ddim.py: the unconditional context is lengthened by its own last tokens."""
    now, net = call(SD1), style()
    model = loaded(tmp_path / "style.safetensors", dict(net.state_dict()))
    step = conditioned(now, model.bind([], told(seen(), weight=0.6)))
    tokens = net(seen()) * 0.6
    assert tokens.std() > 0.02
    assert torch.allclose(step.context[0], torch.cat([now.context[0], tokens[0]]), atol=1e-5)
    own = torch.cat([now.context[1], now.context[1, -1:], now.context[1]])
    assert torch.equal(step.context[1], own)


@torch.no_grad()
def test_styles_of_several_pictures_in_one_unit_lie_one_behind_the_other(tmp_path: Path) -> None:
    now, net = call(SD1), style()
    model = loaded(tmp_path / "style.safetensors", dict(net.state_dict()))
    step = conditioned(now, model.bind([], told(torch.cat([seen(1), seen(2)]))))
    both = torch.cat([net(seen(1))[0], net(seen(2))[0]])
    assert torch.allclose(step.context[0, -16:], both, atol=1e-5)


def test_prompts_shorter_than_the_style_are_lengthened_all_the_same(tmp_path: Path) -> None:
    now = replace(call(SD1), context=call(SD1).context[:, :3])
    model = loaded(tmp_path / "style.safetensors", dict(style().state_dict()))
    assert conditioned(now, model.bind([], told(seen()))).context.shape[1] == 11


def test_each_picture_of_a_batch_has_its_own_style(tmp_path: Path) -> None:
    now, unet = call(SD1, images=(0, 1, 0, 1)), unet_of(SD1)
    model = loaded(tmp_path / "style.safetensors", dict(style().state_dict()))
    both = hooked(unet, now, model.bind([], told(seen(1), seen(2))))
    for image in (0, 1):
        rows = [row for row in range(4) if now.images[row] == image]
        part = replace(now.select(rows), images=(0, 0))
        assert error(both[rows], hooked(unet, part, model.bind([], told(seen(image + 1))))) < 1e-5
    assert torch.equal(hooked(unet, now, model.bind([], told(seen(), weight=0.0)), weight=0.0), plain(unet, now))


def test_what_cannot_be_a_style_is_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path / "style.safetensors", dict(style().state_dict()))
    for given in (told(), told(seen()[:, :, :32]), settings(SD1, tensors=[{"image_embeds": seen()}])):
        with pytest.raises(PreprocessorError, match="t2ia_style_clipvision"):
            model.bind([], given)
    with pytest.raises(PreprocessorError, match="a control map"):
        model.bind([picture(64, 64)], settings(SD1))
    with pytest.raises(BaseModelError, match="text width 48"):
        model.check(BaseModel(SD2, "tiny"))
    facts = FactReader(discover()).read(tmp_path / "style.safetensors")
    assert (facts.family, facts.mismatch(BaseModel(SD1, "tiny"))) == ("t2i_style", "")
    assert facts.mismatch(BaseModel(SD2, "tiny"))
    for key, words in (("ln_post.bias", r"missing: ln_post\.bias"), (None, "not part of the network: extra")):
        weights = dict(style().state_dict())
        weights.update({"extra": torch.ones(1)} if key is None else {})
        weights.pop(str(key), None)
        with pytest.raises(ModelFileError, match=words):
            loaded(tmp_path / "other.safetensors", weights)


def coadapters(folder: Path) -> list[Any]:
    """Sketch and depth, told by name and by what lies beside, and style; their fuser beside them."""
    save_file(dict(fuser().state_dict()), folder / "coadapter-fuser-sd15v1.safetensors")
    (folder / "mine.yaml").write_text("coadapter_task: depth\n")
    sketch = loaded(folder / "coadapter-sketch-sd15v1.safetensors", dict(reference("full", 3).state_dict()))
    depth = loaded(folder / "mine.safetensors", dict(reference("light", 3).state_dict()))
    return [sketch, depth, loaded(folder / "coadapter-style-sd15v1.safetensors", dict(style().state_dict()))]


@torch.no_grad()
def test_coadapters_agree_as_the_fuser_says(tmp_path: Path) -> None:
    now, weights = call(SD1), (0.7, 0.9, 0.8)
    sketch, depth, other = coadapters(tmp_path)
    hint = picture(64, 64)
    bounds = [model.bind([hint], settings(SD1, weight=w)) for model, w in zip((sketch, depth), weights, strict=False)]
    session = session_of(*bounds, other.bind([], told(seen(), weight=0.8)), outputs=4)
    for run, weight in zip(session.runs, weights, strict=True):
        run.layers = lambda _progress, weight=weight: (weight,) * 4
    step, control = session.begin_call(now)
    session.done()
    given = {
        0: [part * 0.7 for part in reference("full", 3)(hint.image)],
        3: [part * 0.9 for part in reference("light", 3)(hint.image)],
        5: style()(seen()) * 0.8,
    }
    total, tokens = fuser()(given)
    assert control is not None
    assert tokens is not None
    for ours, theirs in zip(control.outputs(), total, strict=True):
        assert theirs.std() > 0.02
        assert error(ours, theirs.expand_as(ours)) < 1e-4
    assert error(step.context[0, -8:], tokens[0]) < 1e-4
    assert error(tokens, given[5]) > 0.1  # type: ignore[arg-type]


def test_one_alone_or_without_a_fuser_is_as_others_are(tmp_path: Path) -> None:
    now, hint = call(SD1), picture(64, 64)
    sketch, depth, _ = coadapters(tmp_path)
    alone = session_of(sketch.bind([hint], settings(SD1)), outputs=4).begin_call(now)[1]
    (tmp_path / "coadapter-fuser-sd15v1.safetensors").unlink()
    unfused = [load_model(model.path, CPU, discover()) for model in (sketch, depth)]
    assert all(model.co is None for model in unfused)
    same = session_of(unfused[0].bind([hint], settings(SD1)), outputs=4).begin_call(now)[1]
    assert alone is not None
    assert same is not None
    assert all(torch.equal(*pair) for pair in zip(alone.outputs(), same.outputs(), strict=True))


def test_the_fuser_itself_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="the fuser of CoAdapters"):
        loaded(tmp_path / "coadapter-fuser-sd15v1.safetensors", dict(fuser().state_dict()))
