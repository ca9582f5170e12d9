"""The device's memory as the host rules it: other checkpoints, unloading, and what it is short of."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_controlnet.hosts import a1111_memory
from lib_controlnet.loading.canonical import DIFFERENCE_KEY
from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from tests.engine.tiny import randomise
from tests.standalone import tiny_checkpoint

from .conftest import Host, pixels, unit


def extension_of(host: Host) -> Any:
    """The extension as the host runs it."""
    del host
    return sys.modules["sd_controlnet_annotator"].extension  # type: ignore[attr-defined]


class Away:
    """Where a model's weights are, for one that only says so."""

    def __init__(self) -> None:
        self.away, self.size = True, 1 << 20

    def leave(self) -> None:
        self.away = False


@pytest.fixture
def left_there(host: Host) -> Any:
    """A control model that the job before has left on the card, as the setting allows."""
    models = extension_of(host).services.models
    model: Any = type("Model", (), {})()
    model.residence, model.holds_base, model.from_fp8 = Away(), False, False
    models._alive[model] = SimpleNamespace(serves=lambda *_: False)
    yield model
    models._alive.pop(model, None)


def test_unloading_the_checkpoint_frees_the_card_of_ours_too(host: Host, left_there: Any) -> None:
    models = host.app.modules("sd_models")
    models.unload_model_weights()
    models.send_model_to_device(host.app.modules("shared").sd_model)
    assert not left_there.residence.away
    assert pixels(host.txt2img(unit())).any(), "and control goes on"


def test_another_checkpoint_frees_the_card(host: Host, left_there: Any) -> None:
    host.load("two")
    assert not left_there.residence.away
    host.load("one")


def test_the_wrapper_goes_with_the_scripts_and_stays_where_somebody_wrapped_it(host: Host) -> None:
    models, memory = host.app.modules("sd_models"), extension_of(host).memory
    ours = models.unload_model_weights
    memory.unwatch()
    plain = models.unload_model_weights
    assert plain is not ours
    memory.watch()
    memory.watch()
    assert models.unload_model_weights.__wrapped__ is plain
    other = models.unload_model_weights

    def somebody(*args: Any, **kwargs: Any) -> Any:
        return other(*args, **kwargs)

    models.unload_model_weights = somebody
    memory.unwatch()
    assert models.unload_model_weights is somebody
    models.unload_model_weights = plain
    memory.watch()


def test_what_holds_the_weights_of_the_checkpoint_before_goes_with_it(host: Host, files: Path) -> None:
    host.load("one")
    folder, library = files / "ControlNet", extension_of(host).services.library
    own = host.unet().state_dict()
    net = randomise(ControlNet(ControlNetConfig(tiny_checkpoint.unet_config(), 3, (8, 8, 16, 16))), 8).state_dict()
    weights = {key: value - own[key] if key in own else value for key, value in net.items()}
    save_file({**weights, DIFFERENCE_KEY: torch.zeros(1)}, folder / "holding.safetensors")
    library.refresh()
    try:
        first = pixels(host.txt2img(unit(model="holding")))
        held = [m for m in extension_of(host).services.models._models.values() if m.holds_base]
        assert len(held) == 1
        host.load("two")
        assert not [m for m in extension_of(host).services.models._models.values() if m.holds_base]
        host.load("one")
        assert (pixels(host.txt2img(unit(model="holding"))) == first).all()
    finally:
        (folder / "holding.safetensors").unlink()
        library.refresh()


@pytest.mark.parametrize(
    ("flags", "lowvram", "expected"),
    [
        ({}, False, (False, False)),
        ({"medvram": True}, True, (True, False)),
        ({"lowvram": True}, True, (True, True)),
        ({"lowvram": True}, False, (False, False)),
    ],
)
def test_the_hosts_own_flags_count(
    host: Host, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], lowvram: bool, expected: tuple[bool, bool]
) -> None:
    shared, low = host.app.modules("shared"), host.app.modules("lowvram")
    monkeypatch.setattr(shared.sd_model, "lowvram", lowvram)
    for flag, value in flags.items():
        monkeypatch.setattr(shared.cmd_opts, flag, value)
    sent: list[int] = []
    monkeypatch.setattr(low, "send_everything_to_cpu", lambda: sent.append(1))
    runtime = extension_of(host).runner._host.runtime(host.unet())
    assert (runtime.short, runtime.low_vram) == expected
    runtime.reserve(1000)
    assert sent == ([1] if expected[1] else [])


def test_an_fp8_checkpoint_is_seen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = extension_of(host).runner._host
    plain = runtime.base_id()
    assert not runtime.runtime(host.unet()).keeps_fp8
    monkeypatch.setattr(host.app.modules("devices"), "fp8", True)
    narrow = runtime.runtime(host.unet())
    assert (narrow.keeps_fp8, narrow.base_rounded) == (True, True)
    assert runtime.base_id() != plain
    layer: Any = next(module for module in host.unet().modules() if isinstance(module, torch.nn.Linear))
    monkeypatch.setitem(layer.__dict__, "fp16_weight", layer.weight.detach())
    assert not a1111_memory.is_rounded(host.unet())
