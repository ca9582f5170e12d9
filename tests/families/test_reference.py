"""The reference effect's hooks against sd-webui-controlnet's replaced forwards, written out on the same U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn

from lib_controlnet.core.errors import HostError
from lib_controlnet.core.hints import Hint
from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.sites import AttentionPatch, SiteCall, UNetSites
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.families.base import BoundControl
from lib_controlnet.families.reference import Reference, _Attention, _Place, _Statistics
from lib_controlnet.nets.attention import BasicTransformerBlock
from tests.engine.tiny import SD1_SHAPED, SDXL_SHAPED, hook_counts, tiny_unet

from .driving import hooked, settings
from .test_effects import asked, checkpoint, drawn, hint, step


class Literal:
    """The peer's way: block forwards replaced on the instances, one write pass a reference, then the read pass."""

    def __init__(self, unet: nn.Module, sdxl: bool) -> None:
        self.unet, self.mode, self.uncond = unet, "", [1]
        self.attentions = sorted(
            (m for m in unet.modules() if isinstance(m, BasicTransformerBlock)),
            key=lambda m: -m.norm1.normalized_shape[0],
        )
        for place, block in enumerate(self.attentions):
            block.share, block.bank = place / len(self.attentions), []
            block.forward = MethodType(self.attention, block)
        inputs, outputs = ((4, 5, 7, 8), 6) if sdxl else ((4, 5, 7, 8, 10, 11), 8)
        self.styled = [(unet.middle_block, 0.0)]
        self.styled += [(unet.input_blocks[i], (1 - w / len(inputs)) * 2) for w, i in enumerate(inputs)]
        self.styled += [(unet.output_blocks[i], w / outputs * 2) for w, i in enumerate(range(outputs))]
        for block, share in self.styled:
            block.share, block.moments, block.plain = share, [], block.forward
            block.forward = MethodType(self.statistics, block)

    def attention(self, block: Any, x: torch.Tensor, context: Any = None) -> torch.Tensor:
        tokens = block.norm1(x)
        attended = None
        if self.mode == "write" and self.attends and self.weight > block.share:
            block.bank.append((tokens.clone(), self.fidelity))
        if self.mode == "read":
            if block.bank:
                fidelity = sum(style for _, style in block.bank) / len(block.bank)
                everything = torch.cat([tokens, *(bank for bank, _ in block.bank)], dim=1)
                seen = block.attn1(tokens, context=everything)
                kept = seen.clone()
                if fidelity > 1e-5:
                    kept[self.uncond] = block.attn1(tokens[self.uncond], context=tokens[self.uncond])
                attended = fidelity * kept + (1 - fidelity) * seen
            block.bank = []
        x = (block.attn1(tokens) if attended is None else attended) + x
        x = block.attn2(block.norm2(x), context) + x
        return block.ff(block.norm3(x)) + x

    def statistics(self, block: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        x = y = block.plain(*args, **kwargs)
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        if self.mode == "write" and self.styles and self.weight > block.share:
            block.moments.append((mean, variance, self.fidelity))
        if self.mode == "read" and block.moments:
            fidelity = sum(style for _, _, style in block.moments) / len(block.moments)
            wanted = sum(moment for moment, _, _ in block.moments) / len(block.moments)
            spread = (sum(v for _, v, _ in block.moments) / len(block.moments)).clamp(min=1e-6) ** 0.5
            seen = (x - mean) / variance.clamp(min=1e-6) ** 0.5 * spread + wanted
            kept = seen.clone()
            if fidelity > 1e-5:
                kept[self.uncond] = x[self.uncond]
            y = fidelity * kept + (1 - fidelity) * seen
        if self.mode == "read":
            block.moments = []
        return y

    def run(self, now: Step, x: torch.Tensor, name: str, weight: float, fidelity: float) -> torch.Tensor:
        self.attends, self.styles = name != "reference_adain", name != "reference_only"
        self.weight, self.fidelity = weight, fidelity
        with torch.no_grad():
            self.mode = "write"
            self.unet(x, now.timesteps, now.context, now.y)
            self.mode = "read"
            return self.unet(now.x, now.timesteps, now.context, now.y)


def attentive_unet(*config: Any) -> nn.Module:
    """With the random weights as they are drawn, every token looks at all others alike."""
    unet = tiny_unet(*config)
    with torch.no_grad():
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                block.attn1.to_q.weight.mul_(20.0)
                block.attn1.to_out[0].weight.mul_(20.0)
    return unet


def reference(name: str, *hints: Hint, **changes: Any) -> Reference:
    return Reference(hints or [hint()], asked(name, **{"params": (0.5,), **changes}))


def reference_latents(now: Step, seed: int = 3, picture: Hint | None = None) -> torch.Tensor:
    """What goes through the U-Net first: the picture's latents, noised by the generator of seed + 1."""
    latents = checkpoint().latents([picture or hint()]).expand(2, -1, -1, -1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed + 1))
    return checkpoint().noised(latents, now.timesteps, noise)


CASES = [
    ("reference_only", 1.0, 0.5, ControlMode.balanced, Pass.base),
    ("reference_only", 0.3, 1.0, ControlMode.balanced, Pass.base),
    ("reference_only", 1.0, 0.5, ControlMode.control, Pass.base),
    ("reference_only", 1.0, 0.5, ControlMode.prompt, Pass.base),
    ("reference_adain", 1.0, 0.5, ControlMode.balanced, Pass.base),
    ("reference_adain", 2.0, 0.0, ControlMode.balanced, Pass.base),
    ("reference_adain+attn", 0.8, 0.25, ControlMode.balanced, Pass.base),
    ("reference_adain+attn", 1.0, 0.5, ControlMode.balanced, Pass.hires),
]


def expected_fidelity(mode: ControlMode, pass_: Pass, slider: float, sdxl: bool) -> float:
    if mode is ControlMode.control:
        return 1.0
    if mode is ControlMode.prompt or pass_ is Pass.hires:
        return 0.0
    return slider**3 if sdxl else slider


@pytest.mark.parametrize("sdxl", [False, True])
@pytest.mark.parametrize(("name", "weight", "slider", "mode", "pass_"), CASES)
def test_the_hooks_do_what_the_peers_forwards_do(
    name: str, weight: float, slider: float, mode: ControlMode, pass_: Pass, sdxl: bool
) -> None:
    unet = attentive_unet(SDXL_SHAPED) if sdxl else attentive_unet()
    now = step()
    if sdxl:
        now = step(context=drawn(2, 7, 2048), y=drawn(2, SDXL_SHAPED.adm_channels))
    base = settings(SDXL_SHAPED if sdxl else SD1_SHAPED).base
    given = reference(name, params=(slider,), weight=weight, mode=mode, pass_=pass_, base=base)
    clean = hook_counts(unet)
    with torch.no_grad():
        plain = unet(now.x, now.timesteps, now.context, now.y)
    found = hooked(unet, now, given, weight=weight)
    assert hook_counts(unet) == clean
    with torch.no_grad():
        assert torch.equal(unet(now.x, now.timesteps, now.context, now.y), plain)
    fidelity = expected_fidelity(mode, pass_, slider, sdxl)
    expected = Literal(unet, sdxl).run(now, reference_latents(now), name, weight, fidelity)
    assert (expected - plain).abs().max() > 1e-4, "a reference without effect would prove nothing"
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=1e-5)


class Addition(BoundControl):
    """Adds to what each cross-attention found, as an IP-Adapter does."""

    def __init__(self, in_prompt: bool) -> None:
        self.in_prompt = in_prompt

    def attach(self, sites: UNetSites) -> None:
        for place in sites.attentions("attn2"):
            sites.attention(place, Heard())


class Heard(AttentionPatch):
    def merged(self, call: SiteCall, queries: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        return attended + 0.5 * call.weight * queries


@contextmanager
def heard(unet: nn.Module) -> Iterator[None]:
    """The same by plain hooks, in every call of the U-Net."""
    queries: dict[nn.Module, torch.Tensor] = {}
    handles = []
    for block in (m for m in unet.modules() if isinstance(m, BasicTransformerBlock)):
        attention = block.attn2
        keep = partial(lambda at, _module, _args, output: queries.__setitem__(at, output), attention)
        add = partial(lambda at, _module, args: (args[0] + 0.5 * queries[at],), attention)
        handles += [attention.to_q.register_forward_hook(keep), attention.to_out[0].register_forward_pre_hook(add)]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("first", [True, False])
def test_the_picture_is_looked_at_with_the_prompt_that_pictures_are_part_of(first: bool) -> None:
    """As in the peer, whose patched attentions act whenever the U-Net runs; a control that is no prompt does not."""
    unet, now = attentive_unet(), step()
    given = reference("reference_adain+attn", params=(0.2,), weight=1.0)
    units = [Addition(True), given] if first else [given, Addition(True)]
    found, other = hooked(unet, now, *units, weight=1.0), hooked(unet, now, Addition(False), given, weight=1.0)
    with heard(unet):
        expected = Literal(unet, False).run(now, reference_latents(now), "reference_adain+attn", 1.0, 0.2)
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=1e-5)
    assert (other - expected).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["reference_only", "reference_adain", "reference_adain+attn"])
def test_two_references_count_alike(name: str) -> None:
    """As in the peer: the means of what they show, and of their fidelities."""
    unet, now = attentive_unet(), step()
    shown = [hint(seed=1), hint(seed=2)]
    units = [reference(name, one, params=(slider,), weight=1.0) for one, slider in zip(shown, (0.2, 0.8), strict=True)]
    found = hooked(unet, now, *units, weight=1.0)
    literal = Literal(unet, False)
    literal.attends, literal.styles = name != "reference_adain", name != "reference_only"
    with torch.no_grad():
        for one, literal.fidelity in zip(shown, (0.2, 0.8), strict=True):
            literal.mode, literal.weight = "write", 1.0
            unet(reference_latents(now, picture=one), now.timesteps, now.context, now.y)
        literal.mode = "read"
        expected = unet(now.x, now.timesteps, now.context, now.y)
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=1e-5)


class Loud(nn.Module):
    """A block whose features are as large as half precision bears."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 300.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_do_not_overflow(dtype: torch.dtype) -> None:
    """The square of a deviation of 300 is more than float16 holds."""
    block, seen, shown = Loud(), drawn(2, 4, 8, 8).to(dtype), drawn(2, 4, 8, 8, seed=2).to(dtype)
    statistics = _Statistics(0.0, 0.0, _Place())
    statistics.watched(block(shown))
    styled = statistics.styled(SiteCall(step(), 1.0, (8, 8)), block(seen))
    x, wanted = block(seen).double(), block(shown).double()
    kinds = [(t.mean((2, 3), keepdim=True), t.std((2, 3), keepdim=True, correction=0)) for t in (x, wanted)]
    exact = (x - kinds[0][0]) / kinds[0][1] * kinds[1][1] + kinds[1][0]
    assert styled.dtype is dtype
    torch.testing.assert_close(styled.double(), exact, atol=1.0, rtol=4 * torch.finfo(dtype).eps)


def test_a_written_over_bank_is_said() -> None:
    unet, now = attentive_unet(), step()
    attention = next(m for m in unet.modules() if isinstance(m, BasicTransformerBlock)).attn1

    def spoil(_module: nn.Module, args: Any, _output: Any) -> None:
        args[0].add_(1.0)

    attention.register_forward_hook(spoil)
    with pytest.raises(HostError, match="written over"):
        hooked(unet, now, reference("reference_only", params=(0.5,)))


def test_nothing_of_ours_writes_into_the_bank() -> None:
    """Which is why the tokens are kept as they are, not copied."""
    unet, now, copies = attentive_unet(), step(), {}
    effect = reference("reference_adain+attn")

    def kept(*_: object) -> None:
        for layer in effect._layers:
            if isinstance(layer, _Attention) and layer.bank is not None:
                copies.setdefault(layer, (layer.bank.kept, layer.bank.kept.clone()))

    passing = unet.register_forward_pre_hook(kept)
    last = unet.out.register_forward_pre_hook(kept)
    hooked(unet, now, effect)
    assert len(copies) > 5
    assert all(torch.equal(bank, copy) for bank, copy in copies.values())
    for handle in (passing, last):
        handle.remove()


def test_inference_mode_has_no_versions_and_needs_none() -> None:
    unet, now = attentive_unet(), step()
    expected = hooked(unet, now, reference("reference_only", params=(0.5,)))
    with torch.inference_mode():
        found = hooked(unet, now, reference("reference_only", params=(0.5,)))
    torch.testing.assert_close(found, expected)


def test_the_uncond_row_is_itself_at_full_fidelity() -> None:
    unet, now = attentive_unet(), step()
    with torch.no_grad():
        plain = unet(now.x, now.timesteps, now.context)
    found = hooked(unet, now, reference("reference_only", params=(1.0,)))
    torch.testing.assert_close(found[1], plain[1], atol=1e-5, rtol=1e-4)
    assert (found[0] - plain[0]).abs().max() > 1e-3


def test_two_references_are_both_looked_at_and_do_not_see_each_other() -> None:
    unet, now = attentive_unet(), step()
    seen = [(1, hint(seed=1)), (2, hint(seed=2))]
    first, second = (
        reference("reference_only", picture, params=(0.0,), checkpoint=lambda seed=seed: checkpoint(seed=seed))
        for seed, picture in seen
    )
    both = hooked(unet, now, first, second)
    literal = Literal(unet, sdxl=False)
    literal.attends, literal.styles, literal.weight, literal.fidelity = True, False, 1.0, 0.0
    with torch.no_grad():
        literal.mode = "write"
        for seed, picture in seen:
            unet(reference_latents(now, seed, picture), now.timesteps, now.context)
        literal.mode = "read"
        expected = unet(now.x, now.timesteps, now.context)
    torch.testing.assert_close(both, expected, atol=2e-5, rtol=1e-4)


def test_an_error_in_the_reference_pass_leaves_nothing_behind() -> None:
    unet, now = attentive_unet(), step()
    effect = reference("reference_only", params=(0.5,))

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    broken = unet.middle_block.register_forward_hook(fail)
    clean = hook_counts(unet)
    with pytest.raises(RuntimeError, match="out of memory"):
        hooked(unet, now, effect)
    assert hook_counts(unet) == clean
    broken.remove()
    with torch.no_grad():
        plain = unet(now.x, now.timesteps, now.context)
    assert (hooked(unet, now, effect) - plain).abs().max() > 1e-3
