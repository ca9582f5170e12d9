"""Where control models are while a job lasts: in the computer's memory, on the device only while a unit acts."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lib_controlnet.core.errors import DeviceMemoryError
from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.core.units import ControlNetUnit
from lib_controlnet.engine import device_memory, placement
from lib_controlnet.engine.services import Services
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import Runtime
from lib_controlnet.families.controlnet import BoundControlNet
from lib_controlnet.nets.streaming import blocks_of
from tests.device import pretend
from tests.device.pretend import Card, OnCard, pretended

from .test_session import SIZE, FakeGeneration, reference, services, step, unit

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES, 1):
        save_file(reference(seed).state_dict(), path / f"{name}.safetensors")
    return path


@pytest.fixture
def card() -> Iterator[Card]:
    with pretended() as card:
        yield card


class Job:
    """A session on a card, sampled step by step with the progress of `steps` denoiser steps."""

    def __init__(self, card: Card, folder: Path, *units: ControlNetUnit, runtime: Any = None, **settings: Any) -> None:
        self.card = card
        self.services: Services = services(folder, **settings)
        runtime = Runtime(card.device, torch.float32, **(runtime or {}))
        self.session = ControlSession(self.services, FakeGeneration(runtime=runtime))
        self.session.prepare(units)
        self.session.begin(Pass.base, SIZE, SIZE)
        self.models = [run.model for run in self.session.runs]
        self.size = self.models[0].residence.size
        self.computed: list[int] = []

    def call(self, progress: float = 0.0, **fields: Any) -> Residuals | None:
        given, control = self.session.begin_call(on_card(self.card, step(progress=progress, **fields)))
        self.session.end_call(given.x, [])
        self.session.done()
        return control

    @property
    def there(self) -> list[int]:
        """The places, among the units, of models on the card."""
        return [place for place, model in enumerate(self.models) if model.residence.away]

    def uploaded(self) -> float:
        """Models' worth of bytes copied to the card since the last `restart`."""
        return sum(event.size for event in self.card.copies if event.size > 0) / self.size


def on_card(card: Card, step: Step) -> Step:
    return replace(
        step, x=card.tensor(step.x), timesteps=card.tensor(step.timesteps), context=card.tensor(step.context)
    )


def three(*ranges: tuple[float, float], **fields: Any) -> list[ControlNetUnit]:
    return [
        unit(i, model=name, guidance_start=start, guidance_end=end, **fields)
        for i, (name, (start, end)) in enumerate(zip(NAMES, ranges, strict=False))
    ]


def test_nothing_goes_to_the_device_before_a_unit_acts(card: Card, folder: Path) -> None:
    job = Job(card, folder, *three((0.5, 1.0)))
    assert (card.memory.live, job.there) == (0, [])
    assert job.call(0.4) is None
    assert job.there == []
    assert not card.copies
    job.call(0.5)
    assert job.there == [0]


def test_a_model_stays_while_it_acts_and_is_copied_once(card: Card, folder: Path) -> None:
    job = Job(card, folder, *three((0.0, 1.0)))
    job.call(0.0)
    card.restart()
    for at in range(1, 5):
        job.call(at / 5)
    assert not card.copies, card.told()


def test_a_model_leaves_with_the_last_unit_that_shares_it(card: Card, folder: Path) -> None:
    units = [unit(0, guidance_end=0.2), unit(1, guidance_end=0.6)]
    job = Job(card, folder, *units)
    there = [(job.call(at / 10), job.there)[1] for at in range(10)]
    assert there == [[0, 1]] * 7 + [[]] * 3
    assert len({id(model) for model in job.models}) == 1


@pytest.mark.parametrize(
    "ranges",
    [
        ((0.0, 0.5), (0.0, 0.5), (0.5, 1.0)),
        ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0)),
        ((0.0, 0.5), (0.0, 1.0), (0.5, 1.0)),
        ((0.5, 1.0), (0.0, 0.5), (0.0, 1.0)),
        ((0.0, 0.45), (0.0, 1.0), (0.75, 1.0)),
    ],
)
def test_of_three_units_two_models_are_there_at_most(card: Card, folder: Path, ranges: Any) -> None:
    job = Job(card, folder, *three(*ranges))
    seen = watched_peak(job)
    for at in range(10):
        job.call(at / 10)
    assert max(seen) == 2
    assert set(job.computed) == {0, 1, 2}, "all three acted"


@pytest.mark.parametrize("seed", range(6))
def test_low_vram_keeps_one_model_there_and_moves_each_once_a_step(card: Card, folder: Path, seed: int) -> None:
    drawn = random.Random(seed)
    units = three((0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    low = drawn.randrange(3)
    units[low] = unit(low, model=NAMES[low], low_vram=True)
    job = Job(card, folder, *units)
    seen = watched_peak(job)
    for at in range(4):
        card.restart()
        job.call(at / 4)
        assert job.uploaded() < (3.1 if at == 0 else 2.1), "one of three is there already"
    assert max(seen) == 1


def test_a_single_low_vram_model_stays_for_its_range(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit(low_vram=True))
    job.call(0.0)
    card.restart()
    for at in range(1, 4):
        job.call(at / 4)
    assert not card.copies, card.told()
    assert job.there == [0]
    job.session.end(1)
    assert card.memory.live < job.size, "off before the picture is decoded"


def test_low_vram_does_not_move_a_model_for_each_of_merged_pictures(card: Card, folder: Path) -> None:
    units = [unit(i, model=NAMES[i // 3], low_vram=True) for i in (0, 3, 1, 4, 2, 5)]
    job = Job(card, folder, *units)
    job.call(0.0)
    for at in range(1, 4):
        card.restart()
        job.call(at / 4)
        assert job.uploaded() < 1.1, card.told()


def watched_peak(job: Job) -> list[int]:
    """How many models are on the card at each computing; `job.computed` gets which."""
    seen: list[int] = []
    job.computed.clear()
    for run in job.session.runs:
        bound: Any = run.bound
        control = bound.residuals

        def watched(given: Step, control: Any = control, model: Any = run.model) -> Residuals:
            there = {id(m) for m in job.models if m.residence.away}
            assert id(model) in there
            seen.append(len(there))
            job.computed.append(job.models.index(model))
            return control(given)

        bound.residuals = watched
    return seen


ORDERS = [(False, False, False), (True, False, True), (True, True, True)]


@pytest.mark.parametrize("low", ORDERS)
def test_the_sum_is_that_of_the_processor_to_the_bit(folder: Path, low: tuple[bool, ...]) -> None:
    """Whichever computes first: units are added in their order."""
    units = [unit(i, model=NAMES[i % 2], low_vram=value, weight=0.7 + i / 10) for i, value in enumerate(low)]
    plain = ControlSession(services(folder), FakeGeneration())
    plain.prepare(units)
    plain.begin(Pass.base, SIZE, SIZE)
    expected = plain.begin_call(step(progress=0.5))[1]
    assert expected is not None
    with pretended() as card:
        job = Job(card, folder, *units)
        for _ in range(3):
            control = job.call(0.5)
            assert control is not None
            for ours, theirs in zip(control.outputs(), expected.outputs(), strict=True):
                assert torch.equal(card.host(ours), theirs)


def test_on_the_processor_nothing_is_copied(folder: Path) -> None:
    session = ControlSession(services(folder), FakeGeneration())
    session.prepare([unit(low_vram=True)])
    session.begin(Pass.base, SIZE, SIZE)
    net: Any = session.runs[0].model
    before = {name: (id(p), p.data_ptr()) for name, p in net.net.named_parameters()}
    given, _control = session.begin_call(step())
    session.end_call(given.x, [])
    session.end(1)
    session.close()
    assert before == {name: (id(p), p.data_ptr()) for name, p in net.net.named_parameters()}


@pytest.mark.parametrize("low_vram", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("a kernel failed"), KeyboardInterrupt(), DeviceMemoryError("full")])
def test_whichever_way_a_step_ends_the_job_leaves_nothing(
    card: Card, folder: Path, low_vram: bool, error: BaseException
) -> None:
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0), low_vram=low_vram))
    weights = {name: p.clone() for name, p in net_of(job.models[1]).named_parameters()}
    job.call(0.0)

    def fail(_: Step) -> Residuals:
        raise error

    bound: Any = job.session.runs[1].bound
    bound.residuals = fail
    with pytest.raises(type(error)):
        job.call(0.1)
    job.session.break_off()
    assert job.there == []
    del bound.residuals
    for name, parameter in net_of(job.models[1]).named_parameters():
        assert type(parameter) is nn.Parameter
        assert torch.equal(parameter, weights[name])
    job.session.begin(Pass.base, SIZE, SIZE)
    assert job.call(0.2) is not None, "and the next sampling brings what it needs"


def net_of(model: Any) -> nn.Module:
    return model.net


def test_a_job_that_nobody_closes_leaves_the_device_when_it_goes(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit())
    job.call()
    gone, model = weakref.ref(job.session), job.models[0]
    assert model.residence.away
    del job.session
    gc.collect()
    assert gone() is None
    assert not model.residence.away


def test_a_closed_job_leaves_nothing_and_its_model_is_not_read_again(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit())
    job.call()
    path = job.models[0].path
    job.session.close()
    gc.collect()
    assert card.memory.live == 0, "weights, hint's features, everything"
    session = ControlSession(job.services, job.session._generation)  # pyright: ignore[reportPrivateUsage]
    session.prepare([unit()])
    assert session.runs[0].model is job.models[0]
    assert session.runs[0].model.path == path


@pytest.mark.parametrize(("kept", "left"), [(0, 0), (1.5, 1), (2.5, 2), (99, 2)])
def test_what_may_stay_between_jobs_is_bounded(
    card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch, kept: float, left: int
) -> None:
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0)), controlnet_device_cache_gib=kept)
    monkeypatch.setattr(placement, "GIB", job.size)
    job.call()
    job.session.close()
    assert len(job.there) == left


@pytest.mark.parametrize("runtime", [{"short": True}, {"low_vram": True}, {}])
def test_before_a_picture_is_decoded_a_short_host_gets_its_memory(
    card: Card, folder: Path, runtime: dict[str, bool]
) -> None:
    job = Job(card, folder, unit(), runtime=runtime, controlnet_device_cache_gib=99)
    job.call()
    job.session.end(1)
    assert job.there == ([] if runtime else [0])
    job.session.close()
    assert job.there == ([] if runtime else [0])


def test_little_free_memory_makes_a_host_short(card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(card, folder, unit())
    job.call()
    monkeypatch.setattr(device_memory, "free_bytes", lambda _: 4400 * SIZE * SIZE)
    job.session.end(1)
    assert job.there == [0]
    monkeypatch.setattr(device_memory, "free_bytes", lambda _: 4400 * SIZE * SIZE - 1)
    job.session.end(1)
    assert job.there == []


def test_a_job_within_takes_a_model_away_and_the_outer_one_brings_it_again(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit())
    expected = job.call(0.1)
    held = job.session.hold()
    inner = ControlSession(job.services, job.session._generation)  # pyright: ignore[reportPrivateUsage]
    inner.prepare([unit(low_vram=True)])
    inner.begin(Pass.base, SIZE, SIZE)
    inner.begin_call(on_card(card, step()))
    inner.close()
    assert job.there == []
    job.session.resume(held)
    again = job.call(0.1)
    assert expected is not None
    assert again is not None
    for one, other in zip(expected.outputs(), again.outputs(), strict=True):
        assert torch.equal(card.host(one), card.host(other))


def test_copies_to_a_cuda_card_come_from_page_locked_memory(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit())
    job.call()
    waits = [event for event in card.copies if event.waits and event.size > 1000 and "residence" in event.place]
    assert not waits, card.told()
    job = Job(card, folder, unit(), controlnet_pinned_memory=False)
    card.restart()
    job.call()
    assert any("residence" in event.place and event.waits for event in card.copies)


def test_where_the_system_grants_no_page_locked_memory_copies_wait(
    card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setitem(pretend._SPECIAL, torch.Tensor.pin_memory, refuse)
    job = Job(card, folder, unit())
    assert job.call() is not None
    assert job.there == [0]


class Full:
    """A card on which a call fails so often, or fails until no other model is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
        self.left, self.tried = times, 0
        control = BoundControlNet.residuals

        def limited(bound: Any, given: Step) -> Residuals:
            self.tried += 1
            if self.left:
                self.left -= 1
                raise error
            return control(bound, given)

        monkeypatch.setattr(BoundControlNet, "residuals", limited)


SHORT = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
    RuntimeError("Could not allocate tensor with 8 bytes. There is not enough GPU video memory available!"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda e: str(e)[:12])
def test_out_of_memory_frees_what_is_idle_and_tries_once_more(
    card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0)))
    unloaded: list[int] = []
    monkeypatch.setattr(job.services.preprocess, "unload", lambda: unloaded.append(1))
    expected = job.call(0.0)
    assert job.there == [0, 1]
    full = Full(monkeypatch, error, 1)
    seen = watched_peak(job)
    again = job.call(0.0)
    assert (full.tried, unloaded, seen) == (3, [1], [2, 1, 1])
    assert expected is not None
    assert again is not None
    assert torch.equal(card.host(expected.middle), card.host(again.middle))


@pytest.mark.parametrize("error", SHORT, ids=lambda e: str(e)[:12])
def test_out_of_memory_twice_names_unit_model_sizes_and_remedy(
    card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0)))
    monkeypatch.setattr(placement, "free_bytes", lambda _: 3 << 30)
    monkeypatch.setattr(placement, "total_bytes", lambda _: 8 << 30)
    Full(monkeypatch, error, 2)
    with pytest.raises(DeviceMemoryError) as caught:
        job.call(0.0)
    text = str(caught.value)
    assert text.startswith("ControlNet unit 0, model: the memory of the device cuda:0 is too small")
    assert f'"first.safetensors" of {job.size / (1 << 20):.1f} MiB with 2 rows of {SIZE}x{SIZE}' in text
    assert "3.00 GiB of 8.00 GiB are free" in text
    assert "Low VRAM" in text
    assert ("which tried to allocate 20.00 MiB more" in text) == ("CUDA" in str(error))
    kept: BaseException | None = caught.value
    while kept is not None:
        assert kept is not error, "its traceback holds the failed call's tensors on the device"
        kept = kept.__cause__ or kept.__context__


def test_other_errors_are_not_tried_again(card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(card, folder, unit())
    full = Full(monkeypatch, RuntimeError("expected scalar type Half"), 1)
    with pytest.raises(RuntimeError, match="scalar type"):
        job.call()
    assert full.tried == 1


def test_room_is_made_before_a_model_comes(card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    idle = Job(card, folder, unit(model="third"), controlnet_device_cache_gib=99)
    idle.call()
    idle.session.close()
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0)), runtime={"reserve": asked.append})
    job.services.models._alive.update(idle.services.models._alive)  # pyright: ignore[reportPrivateUsage]
    job.call()
    assert asked == [job.size] * 2
    assert idle.there == [0]
    job.session.break_off()
    monkeypatch.setattr(placement, "free_bytes", lambda _: job.size - 1)
    job.call()
    assert idle.there == []
    assert job.there == [0, 1]


def test_by_block_two_blocks_at_most_are_there_and_the_sum_is_the_same(card: Card, folder: Path) -> None:
    whole = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0)))
    expected = whole.call()
    assert expected is not None
    whole.session.close()
    gc.collect()
    job = Job(card, folder, *three((0.0, 1.0), (0.0, 1.0), low_vram=True), controlnet_stream_blocks=True)
    largest = max(size_of(block) for block in blocks_of(net_of(job.models[0])))
    before = card.memory.live
    card.restart()
    for _ in range(3):
        control = job.call()
        assert control is not None
        for ours, theirs in zip(control.outputs(), expected.outputs(), strict=True):
            assert torch.equal(card.host(ours), card.host(theirs))
    outputs = sum(tensor.nbytes for tensor in expected.outputs())
    assert card.memory.peak - before < job.size / 2
    assert card.memory.peak - before > largest
    assert card.memory.live - before < largest + 8 * outputs
    assert not any(parameter.device.type == "cuda" for parameter in net_of(job.models[0]).parameters())
    job.session.end(3)
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in net_of(job.models[0]).modules()]
    assert not any(hooks), "nothing is left on the network"


def test_by_block_a_step_that_fails_leaves_no_block_behind(card: Card, folder: Path) -> None:
    job = Job(card, folder, unit(low_vram=True), controlnet_stream_blocks=True)
    job.call()
    net: Any = net_of(job.models[0])
    handle = net.input_blocks[4][0].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        job.call()
    handle.remove()
    assert not any(parameter.device.type == "cuda" for parameter in net.parameters())
    assert job.call() is not None


class CopyStream:
    """A second stream of a pretended card: what is made on it may be used once its event has been waited for."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_event(self) -> str:
        self.log.append("sent")
        return "whole"

    def wait_event(self, event: str) -> None:
        assert event == "whole"
        self.log.append("waited")


def test_by_block_the_next_block_is_copied_while_one_computes(
    card: Card, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    job = Job(card, folder, unit(low_vram=True), controlnet_stream_blocks=True)
    stream = CopyStream(log)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "Stream", lambda _: stream)
        patched.setattr(torch.cuda, "stream", lambda _: nullcontext())
        patched.setattr(torch.cuda, "current_stream", lambda _: stream)
        patched.setattr(OnCard, "record_stream", lambda *_: log.append("kept"), raising=False)
        patched.setattr(placement, "free_bytes", lambda _: None)
        first = job.call()
        assert not log, "the order is learnt in the first call"
        again = job.call()
        job.session.break_off()
    blocks = sum(1 for block in blocks_of(net_of(job.models[0])) if size_of(block))
    hint = sum(1 for block in blocks_of(nn.Sequential(net_of(job.models[0]).input_hint_block)) if size_of(block))
    assert log.count("waited") >= blocks - hint - 1, "all but the first find what was sent for"
    assert log.count("kept") > log.count("waited"), "each weight's memory is not reused before it was computed with"
    assert first is not None
    assert again is not None
    assert torch.equal(card.host(first.middle), card.host(again.middle))


def size_of(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
