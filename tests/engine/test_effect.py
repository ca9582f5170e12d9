"""How strongly a unit acts, against norms that forward hooks of the test's own take on the U-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.norms import norms
from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.sites import AttentionPatch
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.engine.effect import PassEffect
from lib_controlnet.families.base import BoundControl
from tests.engine.tiny import SD1_SHAPED, tiny_unet
from tests.families.driving import called, session_of

ROWS = 4


def step(rows: int = ROWS, turn: int = 1) -> Step:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, 4, 8, 8, generator=generator)
    context = torch.randn(rows, 5, SD1_SHAPED.context_dim, generator=generator)
    half = rows // 2
    cond = (True,) * half + (False,) * (rows - half)
    images = tuple(range(half)) + tuple(range(rows - half))
    return Step(x, torch.full((rows,), 400.0), context, None, cond, images, 0.0, Pass.base, turn=turn)


class Adding(BoundControl):
    """Gives what the test has made for all rows, of which its own are the first."""

    def __init__(self, residuals: Residuals, pooled: bool = False) -> None:
        self._residuals = residuals
        self.pooled = pooled

    def residuals(self, step: Step) -> Residuals:
        return self._residuals.changed(lambda tensor: tensor[: step.batch])


def blocks_of(unet: Any, now: Step) -> list[Tensor]:
    """What its input blocks and the middle one give without any control."""
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, output: seen.append(output.clone()))
        for block in (*unet.input_blocks, unet.middle_block)
    ]
    with torch.no_grad():
        unet(now.x, now.timesteps, now.context)
    for handle in handles:
        handle.remove()
    return seen


def made(blocks: list[Tensor], scale: float = 0.1) -> Residuals:
    generator = torch.Generator().manual_seed(5)
    drawn = [torch.randn(block.shape, generator=generator) * scale for block in blocks]
    return Residuals(skip=tuple(drawn[:-1]), middle=drawn[-1])


def share_of(session: Any, now: Step, unet: Any, unit: int = 0) -> float:
    called(unet, now, session)
    session.end(1)
    (effect,) = [one for one in session.effects if one.unit == unit]
    return effect.steps[0]


def whole(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.double().flatten() for tensor in tensors]).norm())


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet(SD1_SHAPED)


@pytest.mark.parametrize("weight", [0.3, 1.0, 2.0])
def test_residuals_of_skips_and_middle(unet: Any, weight: float) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    given = made(blocks)
    session = session_of(Adding(given), outputs=len(blocks), weight=weight, layer_weights=(weight,) * len(blocks))
    expected = weight * whole(list(given.outputs())) / whole(blocks)
    assert share_of(session, now, unet) == pytest.approx(expected, rel=1e-5)


def test_rows_of_the_positive_prompt_alone(unet: Any) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    given = made(blocks)
    session = session_of(Adding(given), outputs=len(blocks), layer_weights=(1.0,) * len(blocks), uncond_weight=0.0)
    half = ROWS // 2
    expected = whole([tensor[:half] for tensor in given.outputs()]) / whole([block[:half] for block in blocks])
    assert share_of(session, now, unet) == pytest.approx(expected, rel=1e-5)


def test_a_region(unet: Any) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    given = made(blocks)
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, :, :32] = 1
    session = session_of(Adding(given), outputs=len(blocks), layer_weights=(1.0,) * len(blocks), region=mask)

    def within(tensor: Tensor) -> Tensor:
        return tensor * torch.nn.functional.interpolate(mask, tensor.shape[2:], mode="bilinear", align_corners=False)

    expected = whole([within(one) for one in given.outputs()]) / whole([within(one) for one in blocks])
    assert share_of(session, now, unet) == pytest.approx(expected, rel=1e-5)


def test_pooled_residuals_count_at_every_position(unet: Any) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    given = made(blocks)
    session = session_of(
        Adding(given, pooled=True), outputs=len(blocks), layer_weights=(1.0,) * len(blocks), uncond_weight=1.0
    )
    half = ROWS // 2  # pooled control acts on rows of the positive prompt alone
    pooled = [tensor[:half].mean((2, 3), keepdim=True).expand(half, *tensor.shape[1:]) for tensor in given.outputs()]
    expected = whole(pooled) / whole([block[:half] for block in blocks])
    assert share_of(session, now, unet) == pytest.approx(expected, rel=1e-5)


def test_residuals_of_the_encoder(unet: Any) -> None:
    """A T2I-Adapter's go into the trunk, so that later blocks see them: each is compared with its own block's."""
    now = step()
    blocks = blocks_of(unet, now)
    tensor = torch.randn(blocks[1].shape, generator=torch.Generator().manual_seed(1))
    session = session_of(Adding(Residuals(encoder=(None, tensor))), outputs=1, layer_weights=(1.0,))
    assert share_of(session, now, unet) == pytest.approx(whole([tensor]) / whole([blocks[1]]), rel=1e-5)


class InLayers(BoundControl):
    """Changes what layers give, each in one way of the protocol."""

    def __init__(self, ask: Callable[[Any], None]) -> None:
        self._ask = ask

    def attach(self, sites: Any) -> None:
        self._ask(sites)


def gives(unet: Any, now: Step, name: str, before: bool = False) -> Tensor:
    """What a layer gives (or is given) without control."""
    seen: list[Tensor] = []
    module = unet.get_submodule(name)
    if before:
        handle = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    else:
        handle = module.register_forward_hook(lambda _m, _a, output: seen.append(output.clone()))
    with torch.no_grad():
        unet(now.x, now.timesteps, now.context)
    handle.remove()
    return seen[0]


def first_attention(unet: Any, which: str) -> str:
    return next(name for name, _ in unet.named_modules() if name.endswith(f".{which}"))


class Merging(AttentionPatch):
    """Half as much again of what was attended to."""

    merged = staticmethod(lambda _call, _queries, attended: attended * 1.5)


def test_what_an_attention_gives(unet: Any) -> None:
    now = step()

    def ask(sites: Any) -> None:
        sites.attention(sites.attentions("attn2")[0], Merging())

    assert share_of(session_of(InLayers(ask)), now, unet) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("way", ["before", "after", "added"])
def test_what_layers_give_or_are_given(unet: Any, way: str) -> None:
    now = step()
    name = f"{first_attention(unet, 'attn2')}.to_q"
    shift = torch.randn(gives(unet, now, name, way == "before").shape, generator=torch.Generator().manual_seed(9))

    def ask(sites: Any) -> None:
        patches = {"added": lambda _site, given: shift[: len(given)], "rest": lambda _site, own: own + shift}
        getattr(sites, way)(name, patches.get(way, patches["rest"]))

    expected = whole([shift]) / whole([gives(unet, now, name, way == "before")])
    assert share_of(session_of(InLayers(ask)), now, unet) == pytest.approx(expected, rel=1e-5)


class Further(AttentionPatch):
    """There is more to attend to."""

    def further(self, call: Any, tokens: Tensor) -> Tensor:
        return tokens * 3.0


@pytest.mark.parametrize("rows", [1.0, 0.5])
def test_more_to_attend_to_is_compared_with_the_attention_without_it(unet: Any, rows: float) -> None:
    now = step()
    name = first_attention(unet, "attn1")
    own = gives(unet, now, name)
    module = unet.get_submodule(name)
    tokens = gives(unet, now, name, before=True)
    with torch.no_grad():
        longer = module(tokens, context=torch.cat([tokens, tokens * 3.0], dim=1))

    def ask(sites: Any) -> None:
        sites.attention(sites.attentions("attn1")[0], Further())

    uncond = torch.full((ROWS, 1, 1), rows)
    uncond[: ROWS // 2] = 1.0
    session = session_of(InLayers(ask), uncond_weight=rows)
    expected = whole([(longer - own) * uncond]) / whole([own])
    assert share_of(session, now, unet) == pytest.approx(expected, rel=1e-4)


def test_a_changed_prediction(unet: Any) -> None:
    class Halved(BoundControl):
        def predicted(self, step: Step, output: Tensor) -> Tensor:
            return output / 2

    assert share_of(session_of(Halved()), step(), unet) == pytest.approx(0.5, rel=1e-5)


def test_several_units_and_calls_are_told_apart(unet: Any) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    one, two = made(blocks, 0.1), made(blocks, 0.3)
    session = session_of(Adding(one), Adding(two), outputs=len(blocks), layer_weights=(1.0,) * len(blocks))
    for turn in (1, 2, 4):
        called(unet, replace(now, turn=turn), session)
    session.end(4)
    effects = {effect.unit: effect for effect in session.effects}
    shares = [whole(list(given.outputs())) / whole(blocks) for given in (one, two)]
    for unit, share in enumerate(shares):
        assert effects[unit].steps == pytest.approx([share, share, 0.0, share], rel=1e-5)
        assert effects[unit].mean == pytest.approx(share, rel=1e-5)


def test_a_call_that_breaks_off_leaves_nothing(unet: Any) -> None:
    now = step()
    blocks = blocks_of(unet, now)
    session = session_of(Adding(made(blocks)), outputs=len(blocks), layer_weights=(1.0,) * len(blocks))

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = unet.output_blocks[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        called(unet, now, session)
    handle.remove()
    assert share_of(session, now, unet) > 0
    assert len(session.effects) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_norms_do_not_overflow(dtype: torch.dtype) -> None:
    tensors = [torch.full((1000, 1000), 100.0, dtype=dtype), torch.ones(3, 4, dtype=dtype)]
    found = norms(tensors)
    assert [norm.dtype for norm in found] == [torch.float32] * 2
    assert [float(norm) for norm in found] == pytest.approx([1e5, 12**0.5], rel=2e-3)
    assert norms([]) == []


def test_what_did_not_act_has_no_share() -> None:
    assert (PassEffect(0, Pass.base, 3, ()).mean, PassEffect(0, Pass.base, 3, ()).steps) == (0.0, [0.0] * 3)
