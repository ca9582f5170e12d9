"""What the adapter for the Forge family is made of, without a host."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from annotator.sd_controlnet.registry import Registry
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.core.errors import HostError
from lib_controlnet.hosts import forge
from lib_controlnet.hosts.forge import ForgeHost, MarkedRows
from lib_controlnet.hosts.forge_control import ControlObject
from lib_controlnet.hosts.forge_preprocessors import preprocessors


def test_rows_are_told_by_the_call_uncond_first() -> None:
    rows = MarkedRows(2)
    is_cond, images = rows.take(6, {"cond_or_uncond": [1, 0, 0]})
    assert is_cond == (False, False, True, True, True, True)
    assert images == (0, 1, 0, 1, 0, 1)
    assert (rows.rows, rows.again) == (6, False)


def test_a_step_in_two_calls_is_no_tiling_and_a_tilers_calls_are() -> None:
    rows = MarkedRows(1)
    assert rows.take(1, {"cond_or_uncond": [1]}) == ((False,), (0,))
    assert not rows.again
    cond = {"cond_or_uncond": [0]}
    assert rows.take(1, cond) == ((True,), (0,))
    assert not rows.again
    assert rows.take(1, cond) == ((True,), (0,))
    assert rows.again
    # several tiles in one call, the rows of each side by side
    tiles = MarkedRows(1).take(4, {"cond_or_uncond": [1, 0]})
    assert tiles == ((False, True, False, True), (0, 0, 0, 0))


def test_windows_of_pictures_are_refused() -> None:
    rows = MarkedRows(4)
    with pytest.raises(HostError, match="4 rows for 2 times 4 pictures"):
        rows.take(4, {"cond_or_uncond": [1, 0]})


def test_a_call_that_tells_nothing_is_all_cond() -> None:
    assert MarkedRows(2).take(4, {}) == ((True,) * 4, (0, 1, 0, 1))


class Predictor(nn.Module):
    """Log sigma is straight in the timestep, as `percent_to_sigma` of these hosts reads it."""

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0.0 or percent >= 1.0:
            return 999999999.9 if percent <= 0.0 else 0.0
        return math.exp(math.log(0.03) + (1.0 - percent) * (math.log(14.6) - math.log(0.03)))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> ForgeHost:
    predictor = Predictor()
    monkeypatch.setattr(forge, "_predictor", lambda _model: predictor)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=SimpleNamespace(sd_model=None)))
    return ForgeHost()


@pytest.mark.parametrize("percent", [0.001, 0.2, 0.25, 0.5, 0.777, 0.999])
def test_progress_is_the_noise_level_as_the_hosts_own_range_measures_it(host: ForgeHost, percent: float) -> None:
    sigma = Predictor().percent_to_sigma(percent)
    params = SimpleNamespace(sigma=torch.full((2,), sigma), denoiser=SimpleNamespace(step=3, total_steps=4))
    assert host.progress(params, timed=True) == pytest.approx(percent, abs=1e-5)
    assert host.progress(params, timed=False) == 0.75


@pytest.mark.parametrize(("sigma", "expected"), [(1e9, 0.0), (14.6, 0.0), (0.03, 1.0), (0.0, 1.0)])
def test_progress_stays_within_its_bounds(host: ForgeHost, sigma: float, expected: float) -> None:
    params = SimpleNamespace(sigma=torch.tensor([sigma]), denoiser=SimpleNamespace(step=0, total_steps=1))
    assert host.progress(params, timed=True) == pytest.approx(expected, abs=1e-5)


class Earlier:
    """A control object of the host's own."""

    def get_models(self) -> list[str]:
        return ["its net"]

    def inference_memory_requirements(self, _dtype: Any) -> int:
        return 5

    def get_control(self, *given: Any) -> Any:
        return given


SESSION: Any = SimpleNamespace(size=7, runs=[])


def test_the_control_object_tells_of_memory_and_passes_on_what_was_there() -> None:
    alone = ControlObject(SESSION)
    assert alone.get_models() == []
    assert alone.inference_memory_requirements(None) == 7
    assert alone.get_control("x", "t", {}, 2) is None
    behind = ControlObject(SESSION).set_previous_controlnet(Earlier())
    assert behind.get_models() == ["its net"]
    assert behind.inference_memory_requirements(None) == 12
    assert behind.get_control("x", "t", {}, 2, "options") == ("x", "t", {}, 2, "options")
    assert not hasattr(alone, "dtype")


class Patcher:
    controlnet_linked_list = None

    def __init__(self) -> None:
        self.added: list[Any] = []

    def clone(self) -> Patcher:
        return Patcher()

    def add_patched_controlnet(self, control: Any) -> None:
        self.added.append(control)


def test_the_patcher_is_put_back_unless_somebody_else_has_changed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Patcher()
    objects = SimpleNamespace(unet=first)
    model = SimpleNamespace(forge_objects=objects)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=SimpleNamespace(sd_model=model)))
    session: Any = SimpleNamespace(size=11, runs=[])
    undo = ForgeHost().join(None, session)
    assert objects.unet is not first
    assert objects.unet.added[0].inference_memory_requirements(None) == 11
    undo()
    assert objects.unet is first
    assert first.added == []
    undo = ForgeHost().join(None, session)
    objects.unet = other = Patcher()
    undo()
    assert objects.unet is other


class Base:
    """`modules_forge.supported_preprocessor.Preprocessor`, as far as it matters."""

    tags = ("Canny",)
    sorting_priority = 3
    do_not_need_model = False
    show_control_mode = True
    use_soft_projection_in_hr_fix = False

    def __init__(self, name: str) -> None:
        self.name = name
        hidden = {"label": "Parameter", "minimum": 0.0, "maximum": 1.0, "step": 0.01, "value": 0.5, "visible": False}
        self.slider_resolution = SimpleNamespace(gradio_update_kwargs={**hidden, "value": 512, "visible": True})
        self.slider_1 = SimpleNamespace(gradio_update_kwargs={**hidden, "label": "Half", "visible": True})
        self.slider_2 = self.slider_3 = SimpleNamespace(gradio_update_kwargs=hidden)

    def process_after_running_preprocessors(self) -> None: ...
    def process_before_every_sampling(self) -> None: ...
    def process_after_every_sampling(self) -> None: ...

    def __call__(
        self, image: Any, resolution: int, slider_1: float, slider_2: Any, slider_3: Any, input_mask: Any
    ) -> Any:
        assert (slider_2, slider_3) == (None, None)
        return (image * slider_1).astype(np.uint8)


class Acting(Base):
    def process_before_every_sampling(self) -> None: ...


def test_the_hosts_own_preprocessors_are_ours_where_they_make_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"halved": Base("halved"), "acting": Acting("acting")}
    monkeypatch.setitem(sys.modules, "modules_forge.shared", SimpleNamespace(supported_preprocessors=own))
    monkeypatch.setitem(sys.modules, "modules_forge.supported_preprocessor", SimpleNamespace(Preprocessor=Base))
    found = list(preprocessors())
    assert [one.name for one in found] == ["halved"]
    registry = Registry()
    registry.register_third_party(found[0])
    entry = registry.get("halved")
    assert [slider.label for slider in entry.spec.sliders] == ["Half"]
    picture = np.full((8, 8, 3), 200, np.uint8)
    result = entry.load(Runtime())(picture, resolution=512, params=(0.25,))
    assert np.array_equal(result.map, np.full((8, 8, 3), 50, np.uint8))


def test_what_stands_in_before_the_first_job_is_no_checkpoint() -> None:
    """Forge and Neo have an object there; the page must not call it a network that cannot be steered."""
    loaded = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model=object())))
    assert ForgeHost().has_loaded(loaded)
    assert not ForgeHost().has_loaded(SimpleNamespace(cond_stage_model=None))
    assert not ForgeHost().has_loaded(None)


def test_precision_is_that_of_the_model_that_is_asked_for() -> None:
    """Another one may be in use while a checkpoint is loaded."""
    wrapper = SimpleNamespace(storage_dtype=torch.float16)
    model = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model=wrapper)))
    assert ForgeHost().precision(model) == "torch.float16"
