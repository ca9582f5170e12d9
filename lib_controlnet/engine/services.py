"""What the panel, the API and the sessions of one WebUI share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .library import ModelLibrary
from .model_cache import ModelCache
from .preprocess import Annotators, PreprocessRunner


@dataclass(frozen=True)
class Services:
    """Made once by the entry script and passed on; `setting(key, default)` reads the host's options."""

    library: ModelLibrary
    annotators: Annotators
    preprocess: PreprocessRunner
    models: ModelCache
    setting: Callable[[str, Any], Any]
