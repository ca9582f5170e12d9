"""What holds for every kind of control that is found, without a line for each: doing nothing, rows, regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lib_controlnet.core.errors import UnitError
from tests.device import passes
from tests.device.passes import (
    FAMILIES,
    ROWS,
    SIZE,
    UNBOUNDED,
    Made,
    Rows,
    Studio,
    data_sheets,
    effect_preprocessors,
    unit,
)

KINDS = [*sorted(FAMILIES), *effect_preprocessors()]
SAMPLED = [kind for kind in KINDS if kind in FAMILIES or data_sheets()[kind].effect != "recolor"]
"""All but those that only change decoded pictures, and have tests of their own in whole jobs."""
PAIR = Rows((1, 1), (4,))


class Kind:
    """One kind of control on a tiny U-Net; an effect's unit has no model but acts alone."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.fields: dict[str, Any] = {"preprocessor": "none"} if kind in FAMILIES else {"preprocessor": kind}
        family = kind if kind in FAMILIES else "controlnet"
        name = "SDXL" if kind not in FAMILIES and data_sheets()[kind].effect == "revision" else "SD1"
        self.studio = Studio(folder, FAMILIES[family][1][name], family)
        self.unbounded = kind in UNBOUNDED
        self.needs_model = kind in FAMILIES or not data_sheets()[kind].model_free

        self.among = kind not in FAMILIES and data_sheets()[kind].pictureless
        """It acts among the pictures of a batch, of which there are two then."""

    def unit(self, index: int = 0, **fields: Any) -> Any:
        return unit(index, **{**self.fields, **fields})

    def made(self, *units: Any, rows: Rows | None = None, **given: Any) -> Made:
        return self.studio.made(units, rows=rows or (PAIR if self.among else ROWS["guidance"]), **given)


@pytest.fixture(scope="module", params=SAMPLED)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    return Kind(tmp_path_factory.mktemp("models"), request.param)


def same(one: Made, other: Made) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.outputs, other.outputs, strict=True))


def counted(kind: Kind, monkeypatch: pytest.MonkeyPatch, *units: Any) -> tuple[Made, int]:
    """A pass, and how often a U-Net's forward ran in it."""
    calls: list[int] = []
    build = passes.tiny_unet

    def counting(*args: Any) -> nn.Module:
        unet = build(*args)
        forward = unet.forward
        unet.forward = lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
        return unet

    with monkeypatch.context() as patch:
        patch.setattr(passes, "tiny_unet", counting)
        return kind.made(*units), len(calls)


def test_it_acts(kind: Kind) -> None:
    """Otherwise all that follows would prove nothing."""
    assert not same(kind.made(kind.unit()), kind.made())


IDLE: dict[str, dict[str, Any]] = {
    "weight 0": {"weight": 0.0},
    "outside of its range": {"guidance_start": 0.99, "guidance_end": 1.0},
    "an empty region": {"region_mask": np.zeros((SIZE, SIZE), np.uint8)},
}


@pytest.mark.parametrize("how", IDLE)
def test_what_is_to_do_nothing_does_nothing_and_costs_nothing(
    kind: Kind, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "an empty region" and kind.unbounded:
        pytest.skip("acts on the whole picture, and says so")
    plain, bare = counted(kind, monkeypatch)
    idle, calls = counted(kind, monkeypatch, kind.unit(**IDLE[how]))
    assert same(idle, plain)
    assert calls == bare


@pytest.mark.parametrize("rows", ["prompts of unequal length", "AND of unequal length", "batch in two calls"])
def test_rows_alone_are_rows_together(kind: Kind, rows: str) -> None:
    """The host may compute cond and uncond rows in one call or in several."""
    apart = ROWS[rows]
    together = Rows(apart.conds, (sum(apart.calls),))
    one, other = (kind.made(kind.unit(image=None), rows=each, steps=1) for each in (apart, together))
    torch.testing.assert_close(torch.cat(one.outputs), torch.cat(other.outputs), atol=2e-4, rtol=1e-3)


def test_a_unit_for_each_picture_keeps_to_its_own(kind: Kind) -> None:
    """Rows of a picture do not depend on what the other pictures' units show, and are those of its unit."""

    def shown(first: Any, second: Any) -> torch.Tensor:
        units = (kind.unit(0, weight=first), kind.unit(1, weight=second))
        return kind.made(*units, rows=PAIR, unit_per_image=True, steps=1).outputs[0]

    both, other, plain = shown(1.0, 0.6), shown(1.0, 0.3), kind.made(rows=PAIR, steps=1).outputs[0]
    if kind.among:
        assert not torch.equal(both[0], other[0])
        return
    assert torch.equal(both[0], other[0])
    assert torch.equal(both[2], other[2])
    assert not torch.equal(both[1], other[1])
    assert not torch.equal(both[0], plain[0])


def test_a_region_is_kept_to_or_refused(kind: Kind) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, : SIZE // 2] = 255
    if kind.unbounded:
        with pytest.raises(UnitError, match="region mask"):
            kind.made(kind.unit(region_mask=mask))
        return
    whole, part, plain = kind.made(kind.unit()), kind.made(kind.unit(region_mask=mask)), kind.made()
    assert not same(part, whole)
    assert not same(part, plain)
    everywhere = kind.made(kind.unit(region_mask=np.full((SIZE, SIZE), 255, np.uint8)))
    for one, other in zip(everywhere.outputs, whole.outputs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
