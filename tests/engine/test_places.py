"""Where a unit's model is while its job lasts: units and jobs share models, and Low VRAM moves them away."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib_controlnet.core.step import Pass
from lib_controlnet.families.controlnet import LoadedControlNet

from .test_session import SIZE, began, folder, step, unit  # noqa: F401 (a fixture)


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The places that models are moved to; "call" where one computes."""
    seen: list[object] = []
    monkeypatch.setattr(LoadedControlNet, "move", lambda self, device: seen.append(device))
    encode = LoadedControlNet.bind

    def bind(self, hints, options):
        bound: Any = encode(self, hints, options)
        control = bound.control

        def watched(given):
            seen.append("call")
            return control(given)

        bound.control = watched
        return bound

    monkeypatch.setattr(LoadedControlNet, "bind", bind)
    return seen


CPU = torch.device("cpu")


@pytest.mark.parametrize("low", [(True, False), (False, True), (False, False)])
def test_a_model_that_one_unit_keeps_is_kept_for_all_that_share_it(folder, moves, low):  # noqa: F811
    session = began(folder, *(unit(i, low_vram=value) for i, value in enumerate(low)))
    moves.clear()
    session.control(step())
    assert moves == ["call", "call"]


def test_a_model_that_no_unit_keeps_is_there_for_its_calls_alone(folder, moves):  # noqa: F811
    session = began(folder, unit(0, low_vram=True), unit(1, low_vram=True))
    moves.clear()
    session.control(step())
    assert moves == [CPU, "call", CPU] * 2
    moves.clear()

    def fail(_: object) -> Any:
        raise MemoryError

    bound: Any = session.runs[0].bound
    bound.control = fail
    with pytest.raises(MemoryError):
        session.control(step())
    assert moves == [CPU, CPU], "and leaves where its call fails"


def test_a_model_that_another_job_moved_away_comes_back(folder, moves):  # noqa: F811
    """ADetailer's own job with the same file and Low VRAM, between two passes or within one."""
    session = began(folder, unit())
    moves.clear()
    session.begin(Pass.hires, SIZE, SIZE)
    assert moves == [CPU]
    held = session.hold()
    moves.clear()
    session.resume(held)
    assert moves == [CPU]
