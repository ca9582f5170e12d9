"""Networks of preprocessors between computer and device: when they are where, and what happens when memory is short."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from annotator.sd_controlnet.networks import ready
from annotator.sd_controlnet.registry import Entry, Registry, _loaded
from annotator.sd_controlnet.spec import PreprocessorSpec, Runtime
from lib_controlnet.core.errors import PreprocessorError
from lib_controlnet.engine.preprocess import PreprocessRunner
from tests.device.pretend import Card, pretended

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)


class Stage:
    """A preprocessor with one network of a kilobyte, and the runner that runs it with `runtime`."""

    def __init__(self, device: str = "cpu", spec: PreprocessorSpec | None = None, **options: Any) -> None:
        self.runtime = Runtime(device=device)
        self.made: list[str] = []
        self.seen: list[Any] = []
        self.faults: list[Exception] = []
        self.spec = spec or PreprocessorSpec(id="net", label="The net")
        registry = Registry()
        registry.register(Entry(self.spec, lambda runtime: _loaded(self.spec, self.load, runtime)))
        self.runner = PreprocessRunner(registry, lambda: self.runtime, **options)

    def load(self, runtime: Runtime) -> Any:
        def make() -> nn.Module:
            self.made.append(runtime.dtype)
            return ready(nn.Linear(16, 16), runtime)

        def detect(image: np.ndarray, **_settings: Any) -> np.ndarray:
            network = runtime.network("net", make)
            self.seen.append((str(network.weight.device), network.weight.dtype))
            if self.faults:
                raise self.faults.pop(0)
            assert torch.isfinite(network(torch.ones(1, 16, device=runtime.device))).all()
            return image.copy()

        return detect

    def run(self, seed: int = 0) -> Any:
        return self.runner.run("net", PICTURE, resolution=128, seed=seed)


def live(card: Card) -> int:
    gc.collect()
    return card.memory.live


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_network_is_on_the_device_only_while_it_runs(kind: str) -> None:
    with pretended(kind) as card:
        stage = Stage(kind)
        for seed in range(3):
            stage.run(seed)
            assert not live(card)
        assert stage.seen == [(f"{kind}:0", torch.float32)] * 3
        assert len(stage.made) == 1, "its copy in the computer's memory is kept"
        assert not [event for event in card.copies if event.kind == "down"], "the way back is free"


def test_it_stays_between_the_runs_of_a_job() -> None:
    with pretended() as card:
        stage = Stage("cuda")
        with stage.runner.held():
            stage.run(0)
            there = live(card)
            assert there >= 4 * 16 * 16
            card.restart()
            stage.run(1)
            assert not card.copies, card.told()
            assert live(card) == there
        assert not live(card)


def test_a_preview_beside_a_job_takes_nothing_from_it() -> None:
    """Whoever ends last puts away."""
    with pretended() as card:
        stage = Stage("cuda")
        with stage.runner.held():
            with stage.runner.held():
                stage.run(0)
            assert live(card)
        assert not live(card)


def test_a_batch_tool_keeps_it_there() -> None:
    with pretended() as card:
        stage = Stage("cuda", stays=True)
        stage.run(0)
        assert live(card)
        stage.runner.unload()
        assert not live(card)


def test_ending_a_job_waits_for_nobody() -> None:
    """A job whose maps are made goes on while a long preview runs."""
    stage, going, done = Stage(), threading.Event(), threading.Event()
    stage.load = lambda _runtime: lambda image, **_: (going.set(), done.wait(5), image.copy())[2]  # type: ignore[method-assign]
    preview = threading.Thread(target=stage.run)
    with stage.runner.held():
        preview.start()
        assert going.wait(5)
    assert preview.is_alive()
    done.set()
    preview.join()


@pytest.mark.parametrize("act", ["put_away", "unload"])
def test_who_asks_for_the_memory_of_a_running_one_does_not_wait_for_it(act: str) -> None:
    """A step that is out of memory holds what a preview, out of memory too, needs: neither may wait for the other."""
    turn, going, asked = threading.Lock(), threading.Event(), threading.Event()
    freed: list[bool] = []

    def free() -> None:
        freed.append(turn.acquire(timeout=5))

    def step() -> None:
        assert going.wait(5)
        with turn:
            getattr(stage.runner, act)()
        asked.set()

    with pretended() as card:
        stage = Stage("cuda", free=free)
        load = stage.load

        def detector(runtime: Runtime) -> Any:
            def detect(image: np.ndarray, **settings: Any) -> np.ndarray:
                going.set()
                assert asked.wait(5), "the step waits for the preview"
                stage.faults = [] if freed else [MemoryError()]
                return load(runtime)(image, **settings)

            return detect

        stage.load = detector  # type: ignore[method-assign]
        asking = threading.Thread(target=step)
        asking.start()
        stage.run()
        asking.join(5)
        assert freed == [True]
        assert not live(card)


OUT_OF_MEMORY = [
    MemoryError("no room"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    RuntimeError("Could not allocate tensor with 9 bytes. There is not enough GPU video memory available!"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_frees_what_is_idle_and_tries_once_more(error: Exception) -> None:
    freed: list[int] = []
    with pretended() as card:
        stage = Stage("cuda", free=lambda: freed.append(live(card)))
        stage.faults = [error]
        assert np.array_equal(stage.run().map, PICTURE)
    assert freed == [0], "its own network has left the device before others are asked to"
    assert len(stage.seen) == 2


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("sized", "words"), [(True, "resolution 128.*lower its resolution"), (False, "smaller picture")]
)
def test_out_of_memory_twice_names_preprocessor_size_and_remedy(error: Exception, sized: bool, words: str) -> None:
    spec = PreprocessorSpec(id="net", label="The net", **({} if sized else {"resolution": None}))
    stage = Stage(spec=spec)
    stage.faults = [error, error]
    with pytest.raises(PreprocessorError, match=f"(?s)The net.*48x64.*{words}") as caught:
        stage.run()
    assert str(error)[:20] in str(caught.value)
    assert np.array_equal(stage.run().map, PICTURE), "the next run is not hindered"
    assert len(stage.made) == 3


def test_other_errors_are_not_tried_again() -> None:
    stage = Stage()
    stage.faults = [RuntimeError("shapes do not match")]
    with pytest.raises(PreprocessorError, match="shapes do not match"):
        stage.run()
    assert len(stage.seen) == 1


def test_a_changed_setting_throws_away_what_depends_on_it_alone(tmp_path: Path) -> None:
    with pretended() as card:
        stage = Stage(spec=PreprocessorSpec(id="net", half=("float16",)))
        places = [("cpu", "float32"), ("cuda", "float32"), ("cuda", "float16"), ("cpu", "float32"), ("cuda", "float16")]
        for seed, (device, dtype) in enumerate(places):
            stage.runtime = replace(stage.runtime, device=device, dtype=dtype)
            stage.run(seed)
            assert not live(card)
        assert stage.made == ["float32", "float16"], "a device is no reason to read a file again, nor is a former type"
        assert stage.seen == [
            (device if device == "cpu" else "cuda:0", getattr(torch, dtype)) for device, dtype in places
        ]
        stage.runtime = replace(stage.runtime, weight_folders=(tmp_path,))
        stage.run(9)
        assert len(stage.made) == 3, "another folder may hold another file"


def test_a_network_that_bears_no_half_is_kept_when_the_type_changes() -> None:
    stage = Stage()
    for seed, dtype in enumerate(("float32", "float16", "bfloat16")):
        stage.runtime = replace(stage.runtime, dtype=dtype)
        stage.run(seed)
    assert stage.made == ["float32"]
