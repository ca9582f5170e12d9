"""What the panel, the API and the sessions of one WebUI share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.preprocessors import Annotators
from ..families.base import BaseModel
from .facts import FactReader
from .library import ModelLibrary
from .measured_maps import MeasuredMaps
from .model_cache import ModelCache
from .preprocess import Pixels, PreprocessRunner
from .weights import WeightFiles


@dataclass(frozen=True)
class Services:
    """Made once by the entry script and passed on; `setting(key, default)` reads the host's options."""

    library: ModelLibrary
    annotators: Annotators
    preprocess: PreprocessRunner
    models: ModelCache
    setting: Callable[[str, Any], Any]
    measured: MeasuredMaps = field(default_factory=MeasuredMaps, kw_only=True)
    """What the page shows of the pictures that were measured last."""
    masks_are_regions: bool = field(default=False, kw_only=True)
    """In this host a unit's mask says where it acts, unless its preprocessor needs one."""


@dataclass(frozen=True)
class PageServices(Services):
    """What the page needs besides, to say beforehand what will and will not work."""

    facts: FactReader
    weights: WeightFiles
    presets: Path
    """The folder of the user's presets."""
    base_model: Callable[[], BaseModel]
    """The loaded checkpoint. Raises HostError where there is none; asking never loads one."""
    draw_pose: Callable[[Mapping[str, Any]], Pixels]
    """A pose in OpenPose JSON -> its map (h, w, 3) uint8."""
    has_pose_editor: Callable[[], bool]
    """Whether the extension sd-webui-openpose-editor is there to edit poses."""
    caption: Callable[[Pixels], str]
    """The host's interrogator on a picture (h, w, 3) uint8. Raises HostError where there is none, or it fails."""
    palette: Callable[[], Sequence[tuple[str, str]]] = tuple
    """What a map of segments may show: (name, "#rrggbb") of each."""
    model_files: WeightFiles | None = None
    """Brings control models into the first of the model folders; None where that is not to be offered."""
    can_caption: Callable[[], bool] = lambda: True
    """Whether there is an interrogator to ask; whether it works is known once it was."""
    setting_problems: Callable[[], Sequence[str]] = tuple
    """A sentence for each option of ours that has a wrong value."""
