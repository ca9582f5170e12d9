"""Each test that asks for `unet_config` runs for every size."""

from __future__ import annotations

import pytest

from lib_controlnet.nets.config import UNetConfig

from .sizes import CONFIGS


@pytest.fixture(params=CONFIGS)
def unet_config(request: pytest.FixtureRequest) -> UNetConfig:
    return CONFIGS[request.param]
