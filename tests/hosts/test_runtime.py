"""Where control models and preprocessors run, and in which type, whatever the host is told."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import Host, pixels, unit

PLACES = [
    ("cpu", torch.float16, torch.float32),
    ("cpu", torch.bfloat16, torch.float32),
    ("cpu", torch.float32, torch.float32),
    ("cuda", torch.float16, torch.float16),
    ("cuda:1", torch.bfloat16, torch.bfloat16),
    ("cuda", torch.float32, torch.float32),
    ("mps", torch.float16, torch.float16),
]


def annotator_runtime() -> Any:
    extension = import_module("sd_controlnet.hosts.webui.extension")
    root = Path(str(extension.__file__)).parents[3]
    a1111 = import_module("sd_controlnet.hosts.a1111").A1111Host()
    return extension._annotator_runtime(import_module("sd_controlnet_annotator"), root, a1111)


@pytest.mark.parametrize(("device", "unet_type", "wanted"), PLACES, ids=str)
def test_half_precision_is_for_graphics_cards(
    host: Host, monkeypatch: pytest.MonkeyPatch, device: str, unet_type: torch.dtype, wanted: torch.dtype
) -> None:
    devices = host.app.modules("devices")
    monkeypatch.setattr(devices, "dtype_unet", unet_type)
    monkeypatch.setattr(devices, "get_device_for", lambda _task: torch.device(device))
    runtime = import_module("sd_controlnet.hosts.a1111").A1111Host().runtime(host.unet())
    assert (runtime.device, runtime.dtype) == (torch.device(device), wanted)
    lent = annotator_runtime()
    assert (lent.device, lent.dtype) == (device, str(wanted).removeprefix("torch."))


@pytest.mark.parametrize("flag", ["controlnet", "all"])
def test_the_flag_decides_for_its_task(host: Host, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """A card beside the processor: only the task that was named leaves it."""
    devices = host.app.modules("devices")
    monkeypatch.setattr(devices, "get_optimal_device_name", lambda: "cuda")
    monkeypatch.setattr(devices.cmd_opts, "use_cpu", [flag])
    monkeypatch.setattr(devices, "dtype_unet", torch.float16)
    place = import_module("sd_controlnet.hosts.a1111").A1111Host().place
    assert place() == (torch.device("cpu"), torch.float32)
    monkeypatch.setattr(devices.cmd_opts, "use_cpu", ["interrogate"])
    assert place() == (torch.device("cuda"), torch.float16)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_unet_is_steered_by_a_net_in_float32(
    host: Host, monkeypatch: pytest.MonkeyPatch, half: torch.dtype
) -> None:
    """`--use-cpu controlnet`, with a U-Net that computes in half precision: nothing fails, and the unit acts."""
    unet, weights = host.unet(), host.unet().state_dict()
    kept = {name: value.clone() for name, value in weights.items()}
    devices = host.app.modules("devices")
    monkeypatch.setattr(devices, "dtype_unet", half)
    try:
        unet.to(half)
        alone, steered = pixels(host.txt2img()), pixels(host.txt2img(unit(weight=1.5)))
    finally:
        unet.to(torch.float32)
        unet.load_state_dict(kept)
    assert np.abs(alone.astype(int) - steered).max() > 0
