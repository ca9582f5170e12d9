"""Which host it is, and what SD.Next's answers."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib_controlnet.core.errors import HostError
from lib_controlnet.hosts import found
from lib_controlnet.hosts.sdnext import SDNextHost


@pytest.mark.parametrize(
    ("there", "name"),
    [({"modules_forge"}, "Forge"), ({"modules.control"}, "SD.Next"), (set(), "AUTOMATIC1111")],
    ids=str,
)
def test_a_host_is_known_by_what_it_has(monkeypatch: pytest.MonkeyPatch, there: set[str], name: str) -> None:
    monkeypatch.setattr(found, "find_spec", lambda module: object() if module in there else None)
    host = found.found_host()
    assert host.name == name
    assert bool(host.notice) == (name == "SD.Next")


@pytest.mark.parametrize(
    "ask",
    [
        lambda host: host.network(),
        lambda host: host.unet(),
        lambda host: host.loaded_model(),
        lambda host: host.runtime(None),
        lambda host: host.noise_schedule(),
        lambda host: host.join(None, None),
        lambda host: host.hooks(None, None),
        lambda host: host.sites(None),
        lambda host: host.rows(None),
        lambda host: host.progress(None, True),
    ],
)
def test_whatever_would_steer_sd_next_says_what_does(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    models = SimpleNamespace(model_data=SimpleNamespace(sd_model=object()))
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(sd_models=models))
    with pytest.raises(HostError, match="Control tab"):
        ask(SDNextHost())


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", torch.float32), ("cuda", torch.float16)], ids=["processor", "card"]
)
def test_preprocessors_run_where_sd_next_does(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: torch.dtype
) -> None:
    devices = SimpleNamespace(device=device, dtype=torch.float16)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(devices=devices))
    assert SDNextHost().place() == (torch.device(device), expected)
