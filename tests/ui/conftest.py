from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from lib_controlnet.engine.services import Services
from tests.surface_services import make_services


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def services_with(tmp_path: Path) -> Callable[..., Services]:
    return lambda **settings: make_services(tmp_path, settings)


class Script:
    """What the host's Script has of the fields that the panel writes."""

    infotext_fields: list[Any] | None = None
    paste_field_names: list[str] | None = None


@pytest.fixture
def script() -> Script:
    return Script()
