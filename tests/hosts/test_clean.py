"""Whatever happens to jobs, the host's U-Nets come out as they were: 200 random sequences of accidents."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.engine.tiny import hook_counts

from .conftest import Host, pixels, unit

SMALL = {"width": 32, "height": 32, "steps": 2}


class Broken(RuntimeError):
    """An accident in the middle of the U-Net."""


class Accidents:
    """The machine's rules against one host; knows each checkpoint's plain picture and its U-Net's untouched state."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.plain: dict[str, np.ndarray] = {}
        self.hooks: dict[str, Any] = {}
        for name in ("one", "wide", "one"):
            self.load(name)
            self.plain[name] = pixels(host.txt2img(**SMALL))
            self.hooks[name] = hook_counts(host.unet())

    def load(self, name: str) -> None:
        """Makes checkpoint `name` the current one."""
        self.host.load(name)
        self.current = name

    def break_at(self, block: int, call: int) -> Any:
        """Makes the `call`-th U-Net call fail inside output block `block`; returns the hook's handle."""
        calls = itertools.count()

        def fail(*_: object) -> None:
            if next(calls) == call:
                raise Broken("the machine says no")

        blocks = self.host.unet().output_blocks
        return blocks[block % len(blocks)].register_forward_pre_hook(fail)

    def stop_at(self, step: int, how: str) -> Any:
        """Presses Interrupt or Skip at a denoiser step."""
        state = self.host.app.modules("shared").state
        calls = itertools.count()

        def press(*_: object) -> None:
            if next(calls) == step:
                getattr(state, how)()

        return self.host.unet().register_forward_pre_hook(press)


@pytest.fixture(scope="module")
def accidents(host: Host) -> Any:
    found = Accidents(host)
    yield found
    found.load("one")


def machine_for(accidents: Accidents) -> type[RuleBasedStateMachine]:
    host = accidents.host
    units = st.sampled_from(
        [
            {},
            {"control_mode": "ControlNet is more important"},
            {"guidance_start": 0.4},
            {"weight": 0.0},
            {"low_vram": True},
            {"module": "reference_only", "model": "None"},
            {"module": "reference_adain+attn", "model": "None", "guidance_end": 0.4},
            {"module": "tile_colorfix"},
        ]
    )

    class Jobs(RuleBasedStateMachine):
        @rule(fields=units, img2img=st.booleans())
        def succeeds(self, fields, img2img):
            if accidents.current == "one":
                (host.img2img if img2img else host.txt2img)(unit(**fields), **SMALL)

        @rule(block=st.integers(0, 3), call=st.integers(0, 1), img2img=st.booleans())
        def breaks_inside_a_step(self, block, call, img2img):
            handle = accidents.break_at(block, call)
            units = [unit()] if accidents.current == "one" else []
            try:
                with pytest.raises(Broken):
                    (host.img2img if img2img else host.txt2img)(*units, **SMALL)
            finally:
                handle.remove()

        @rule(step=st.integers(0, 1), how=st.sampled_from(["interrupt", "skip"]))
        def is_stopped(self, step, how):
            if accidents.current != "one":
                return
            handle = accidents.stop_at(step, how)
            try:
                host.txt2img(unit(), **SMALL)
            finally:
                handle.remove()

        @rule(fields=st.sampled_from([{"model": "nothing"}, {"image": None}, {"weight": 9}, {"model": "xl"}]))
        def is_refused(self, fields):
            with pytest.raises(Exception, match="ControlNet unit 0"):
                host.txt2img(unit(**fields), **SMALL)

        @rule(name=st.sampled_from(["one", "wide"]))
        def another_checkpoint(self, name):
            accidents.load(name)

        @rule()
        def reload_ui(self):
            host.app.reload()

        @invariant()
        def the_unet_is_as_it_was(self):
            assert hook_counts(host.unet()) == accidents.hooks[accidents.current]

        def teardown(self):
            assert np.array_equal(pixels(host.txt2img(**SMALL)), accidents.plain[accidents.current])

    return Jobs


def test_two_hundred_sequences_of_accidents(accidents: Accidents):
    run_state_machine_as_test(
        machine_for(accidents),
        settings=settings(
            max_examples=200,
            stateful_step_count=6,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_hooks_while_nothing_samples(host: Host, accidents: Accidents):
    """A job that fails before sampling must not leave the U-Net armed for the next one."""
    accidents.load("one")
    with pytest.raises(Exception, match="was not found"):
        host.txt2img(unit(model="nothing"), **SMALL)
    assert np.array_equal(pixels(host.txt2img(**SMALL)), accidents.plain["one"])


def test_a_model_swap_in_mid_generation_moves_the_hooks(host: Host, accidents: Accidents):
    """The refiner takes over: same architecture is controlled on, another one is an error unless the unit ended."""
    accidents.load("one")
    refined = {"refiner_switch_at": 0.5, "steps": 4, "width": 64, "height": 64}
    two, wide = (path.stem for path in host.checkpoints[1:])
    plain = pixels(host.txt2img(refiner_checkpoint=two, **refined))
    late = pixels(host.txt2img(unit(guidance_start=0.6), refiner_checkpoint=two, **refined))
    assert not np.array_equal(plain, late), "control reaches the second checkpoint"
    with pytest.raises(Exception, match="took over"):
        host.txt2img(unit(), refiner_checkpoint=wide, **refined)
    host.txt2img(unit(guidance_end=0.4), refiner_checkpoint=wide, **refined)
    accidents.load("one")
    assert hook_counts(host.unet()) == accidents.hooks["one"]
    assert np.array_equal(pixels(host.txt2img(**SMALL)), accidents.plain["one"])
