"""Control beside the U-Net's encoder: the order of waits, whose memory is held, and when there is none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.step import Step
from lib_controlnet.engine.side_stream import SideStream

from .card import OnCard
from .passes import FAMILIES, Made, Studio, unit
from .pretend import pretended


class Streams:
    """Stands in for `torch.cuda`, and writes down what is asked of its streams."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.held: list[tuple[Tensor, str]] = []
        self.now = _Stream(self, "main")
        self.made = 0

    def Stream(self, _device: Any) -> Any:  # noqa: N802 (as torch.cuda has it)
        self.made += 1
        return _Stream(self, "side")

    def current_stream(self, device: Any) -> Any:
        assert device == torch.device("cuda", 0), "the U-Net's card, which need not be the current one"
        return self.now

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.now = self.now, stream
        self.said.append(("begins",))
        yield
        self.now = before


class _Stream:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name

    def wait_stream(self, other: Any) -> None:
        self.streams.said.append((self.name, "waits for", other.name))

    def record_event(self) -> str:
        self.streams.said.append((self.name, "is done"))
        return "done"

    def wait_event(self, event: str) -> None:
        self.streams.said.append((self.name, "waits until", event))


def made(
    monkeypatch: pytest.MonkeyPatch, folder: Path, family: str, units: list[Any], on: bool = True
) -> tuple[Made, Streams]:
    streams = Streams()
    studio = Studio(folder, FAMILIES[family][1]["SD1"], family)
    monkeypatch.setattr("lib_controlnet.engine.session.SideStream", lambda: SideStream(streams))
    monkeypatch.setattr(
        OnCard, "record_stream", lambda tensor, stream: streams.held.append((tensor, stream.name)), raising=False
    )
    with pretended() as card:
        for place in ("input_blocks", "output_blocks"):
            _told(monkeypatch, streams, place)
        result = studio.made(units, card=card, settings={"controlnet_side_stream": on}, steps=2)
        held = [(tuple(tensor.shape), name) for tensor, name in streams.held]
    streams.held = held  # type: ignore[assignment]
    return result, streams


def _told(monkeypatch: pytest.MonkeyPatch, streams: Streams, place: str) -> None:
    """The U-Net's blocks say when they are computed."""
    from . import passes

    build = passes.tiny_unet

    def told(*given: Any) -> Any:
        unet = build(*given)
        for block in getattr(unet, place):
            block.register_forward_pre_hook(lambda *_: streams.said.append((place,)))
        return unet

    monkeypatch.setattr(passes, "tiny_unet", told)


def test_the_first_residual_is_waited_for_and_none_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    units = [unit(preprocessor="none"), unit(1, preprocessor="none", model="second")]
    plain, idle = made(monkeypatch, tmp_path, "controlnet", units, on=False)
    assert {said[0] for said in idle.said} == {"input_blocks", "output_blocks"}
    monkeypatch.undo()
    beside, streams = made(monkeypatch, tmp_path, "controlnet", units)
    assert all(torch.equal(*pair) for pair in zip(beside.outputs, plain.outputs, strict=True))
    blocks = len(FAMILIES["controlnet"][1]["SD1"].input_channels)
    begin = [("side", "waits for", "main"), ("begins",), ("side", "is done")]
    step = [*begin, *[("input_blocks",)] * blocks, ("main", "waits until", "done"), *[("output_blocks",)] * blocks]
    assert streams.said == step * 2
    assert streams.made == 1
    assert {name for _, name in streams.held} == {"main", "side"}
    side = [shape for shape, name in streams.held if name == "side"]
    assert set(side) == {(2, 4, 8, 8), (2,), (2, 7, 24)}, "x, timesteps, context"
    residuals = [shape for shape, name in streams.held if name == "main"]
    assert len(residuals) == 2 * (blocks + 1), "each once a step"


def test_not_where_residuals_go_into_the_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, _ = made(monkeypatch, tmp_path, "t2i_adapter", [unit(preprocessor="none")], on=False)
    monkeypatch.undo()
    beside, streams = made(monkeypatch, tmp_path, "t2i_adapter", [unit(preprocessor="none")])
    assert all(torch.equal(*pair) for pair in zip(beside.outputs, plain.outputs, strict=True))
    assert streams.said.count(("begins",)) == 1, "the first step finds it out"


def test_not_with_low_vram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, streams = made(monkeypatch, tmp_path, "controlnet", [unit(preprocessor="none", low_vram=True)])
    assert ("begins",) not in streams.said


def test_not_without_a_cuda_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("a stream on the processor")

    monkeypatch.setattr(SideStream, "control", refused)
    studio = Studio(tmp_path, FAMILIES["controlnet"][1]["SD1"])
    assert studio.made([unit(preprocessor="none")], settings={"controlnet_side_stream": True}).outputs


def test_what_was_not_read_is_waited_for_at_the_calls_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or another extension may keep the U-Net from its residuals."""
    streams = Streams()
    side = SideStream(streams)
    monkeypatch.setattr(OnCard, "record_stream", lambda *_: None, raising=False)
    with pretended() as card:
        x = card.tensor(torch.zeros(1, 4, 2, 2))
        step = Step(x, x[:, 0, 0, 0], x, None, (True,), (0,), 0.0)
        assert side.control(step, lambda given: Residuals(middle=given.x)) is not None
        side.finish()
        side.finish()
    assert streams.said[-1] == ("main", "waits until", "done")
    assert streams.said.count(("main", "waits until", "done")) == 1
