"""The choices of a unit, with the values that infotext and API clients use (sd-webui-controlnet's words)."""

from __future__ import annotations

from enum import Enum


class ResizeMode(str, Enum):
    """How a control map is brought to the size of the picture."""

    just_resize = "Just Resize"
    crop_and_resize = "Crop and Resize"
    resize_and_fill = "Resize and Fill"

    @property
    def host_index(self) -> int:
        """The host's own number of this mode (`images.resize_image`): 0, 1 or 2."""
        return list(ResizeMode).index(self)


class ControlMode(str, Enum):
    """Whose word weighs more. Both unbalanced modes use the soft ramp of layer weights."""

    balanced = "Balanced"
    prompt = "My prompt is more important"
    control = "ControlNet is more important"

    @property
    def soft(self) -> bool:
        """True where deeper layers weigh more than shallow ones (the ControlNet repository's "guess mode")."""
        return self is not ControlMode.balanced

    @property
    def cond_only(self) -> bool:
        """True where rows of the negative prompt get no control."""
        return self is ControlMode.control


class HiResOption(str, Enum):
    """The passes of a hires-fix generation in which a unit acts."""

    both = "Both"
    low = "Low res only"
    high = "High res only"


class InputMode(str, Enum):
    """Where a unit's pictures come from."""

    simple = "simple"
    batch = "batch"
    merge = "merge"


class UnionType(str, Enum):
    """Condition types of the ControlNet Union models (xinsir), in the order of their task embedding."""

    openpose = "OpenPose"
    depth = "Depth"
    soft_edge = "Soft Edge"
    hard_edge = "Hard Edge"
    normal = "Normal Map"
    segmentation = "Segmentation"
    tile = "Tile"
    inpaint = "Inpaint"
    unknown = "Unknown"


class PulidMode(str, Enum):
    """How much of the face PuLID takes out of what the prompt says already."""

    fidelity = "Fidelity"
    """As its authors' demo: the face above all."""
    style = "Extremely style"
    """The face where the prompt says nothing of it."""
    neutral = "Neutral"
    """The face beside the prompt, as an IP-Adapter (ComfyUI's third choice)."""
