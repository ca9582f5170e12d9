"""Jobs in hosts of the Forge family against the same jobs in AUTOMATIC1111, and what is left after them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.tiny import hook_counts
from tests.hosts.conftest import Host, pixels, unit

from .jobs import HIRES, JOBS


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_that_of_automatic1111(host: Host, expected: Any, name: str) -> None:
    """To a rounding: the rows of a call lie in another order there."""
    result = JOBS[name](host)
    got = [pixels(result, index) for index in range(len(result.images))]
    assert [one.shape for one in got] == [one.shape for one in expected[name]]
    for ours, theirs in zip(got, expected[name], strict=True):
        assert int(np.abs(ours.astype(int) - theirs).max()) <= 1
    if name not in ("none", "weight 0"):
        plain = expected["none"][0]
        assert got[0].shape != plain.shape or np.abs(got[0].astype(int) - plain).mean() > 0.3, "it must matter"
    objects = host.app.modules("shared").sd_model.forge_objects
    assert objects.unet.controlnet_linked_list is None, "no control object of ours is left"


def test_the_range_is_measured_by_the_noise(host: Host) -> None:
    """Four even steps are at 0, 1/3, 2/3 and 1 of the noise, and at 0, 1/4, 1/2 and 3/4 of the steps."""

    def until(end: float) -> NDArray[np.uint8]:
        return pixels(host.txt2img(unit(guidance_end=end), steps=4))

    first = until(0.05)
    assert np.array_equal(until(0.3), first), "the second step is outside, which is a quarter of the steps"
    assert not np.array_equal(until(0.4), first)
    assert not np.array_equal(until(0.99), until(1.0)), "the last step is at the end of the noise"


@pytest.mark.parametrize(
    "wrong",
    [{"model": "no such model"}, {"image": None}, {"module": "no such"}, {"model": "xl"}, {"model": "cut"}],
    ids=str,
)
def test_what_cannot_be_done_stops_the_job_and_nothing_is_left(host: Host, expected: Any, wrong: Any) -> None:
    plain = pixels(host.txt2img())  # which loads the checkpoint, if it is the first
    unet = host.app.modules("shared").sd_model.forge_objects.unet.model.diffusion_model
    before = hook_counts(unet)
    assert int(np.abs(plain.astype(int) - expected["none"][0]).max()) <= 1
    with pytest.raises(Exception, match="unit 0"):
        host.txt2img(unit(**wrong))
    assert hook_counts(unet) == before
    assert np.array_equal(pixels(host.txt2img()), plain)
    assert hook_counts(unet) == before


def test_another_checkpoint_in_the_middle_of_a_series(host: Host) -> None:
    first = pixels(host.txt2img(unit()))
    host.load("two")
    try:
        second = pixels(host.txt2img(unit()))
        host.load("wide")
        with pytest.raises(Exception, match="unit 0"):
            host.txt2img(unit())
    finally:
        host.load("one")
    assert np.array_equal(pixels(host.txt2img(unit())), first)
    assert np.abs(second.astype(int) - first).mean() > 0.5


KINDS = ("ControlObject", "ControlSession", "ArgumentHooks", "LdmSites")


def alive() -> list[object]:
    """What jobs have made of these kinds."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one).__name__ in KINDS]


def test_nothing_of_many_jobs_stays(host: Host) -> None:
    """With failures and other checkpoints among them: no control object, no session."""
    host.txt2img()
    kept = alive()  # of other tests; held, so that no new one has an old one's number
    before = set(map(id, kept))
    for turn in range(6):
        host.load("two" if turn % 3 == 2 else "one")
        host.txt2img(unit(), unit(module="reference_only", model="None"))
        with pytest.raises(Exception, match="unit 0"):
            host.txt2img(unit(model="no such"))
        host.txt2img(unit(), **{**HIRES, "hr_scale": 1.25})
    host.load("one")
    host.txt2img()
    assert [type(one).__name__ for one in alive() if id(one) not in before] == []
    del kept
