"""The peers' enumerations, under their names: what other extensions import of `scripts.enums` and `external_code`."""

from __future__ import annotations

from enum import Enum


class ControlMode(Enum):
    """How prompt and control are balanced."""

    BALANCED = "Balanced"
    PROMPT = "My prompt is more important"
    CONTROL = "ControlNet is more important"


class ResizeMode(Enum):
    """How a map is brought to the picture's size."""

    RESIZE = "Just Resize"
    INNER_FIT = "Crop and Resize"
    OUTER_FIT = "Resize and Fill"

    def int_value(self) -> int:
        """The host's number of the mode."""
        return list(ResizeMode).index(self)


class HiResFixOption(Enum):
    """The passes in which a unit acts."""

    BOTH = "Both"
    LOW_RES_ONLY = "Low res only"
    HIGH_RES_ONLY = "High res only"


class InputMode(Enum):
    """Where a unit's pictures come from."""

    SIMPLE = "simple"
    BATCH = "batch"
    MERGE = "merge"


class BatchOption(Enum):
    """Which units act on which pictures of a batch."""

    DEFAULT = "All ControlNet units for all images in a batch"
    SEPARATE = "Each ControlNet unit for each image in a batch"


class PuLIDMode(Enum):
    """An option of PuLID models; without effect on others."""

    FIDELITY = "Fidelity"
    STYLE = "Extremely style"
    NEUTRAL = "Neutral"


class ControlNetUnionControlType(Enum):
    """What a union model is told that its hint is."""

    OPENPOSE = "OpenPose"
    DEPTH = "Depth"
    SOFT_EDGE = "Soft Edge"
    HARD_EDGE = "Hard Edge"
    NORMAL_MAP = "Normal Map"
    SEGMENTATION = "Segmentation"
    TILE = "Tile"
    INPAINT = "Inpaint"
    UNKNOWN = "Unknown"


class ControlModelType(Enum):
    """Kinds of control models by author; ours are all of the first kind for who distinguishes them."""

    ControlNet = "ControlNet, Lvmin Zhang"
    T2I_Adapter = "T2I_Adapter, Chong Mou"
    T2I_StyleAdapter = "T2I_StyleAdapter, Chong Mou"
    T2I_CoAdapter = "T2I_CoAdapter, Chong Mou"
    MasaCtrl = "MasaCtrl, Mingdeng Cao"
    GLIGEN = "GLIGEN, Yuheng Li"
    AttentionInjection = "AttentionInjection, Lvmin Zhang"
    StableSR = "StableSR, Jianyi Wang"
    PromptDiffusion = "PromptDiffusion, Zhendong Wang"
    ControlLoRA = "ControlLoRA, Wu Hecong"
    ReVision = "ReVision, Stability"
    IPAdapter = "IPAdapter, Hu Ye"
    Controlllite = "Controlllite, Kohya"
    InstantID = "InstantID, Qixun Wang"
    SparseCtrl = "SparseCtrl, Yuwei Guo"
    ControlNetUnion = "ControlNetUnion, xinsir6"

    @property
    def is_controlnet(self) -> bool:
        """Whether its residuals are a ControlNet's."""
        return self.name in ("ControlNet", "ControlLoRA", "InstantID", "ControlNetUnion")


class StableDiffusionVersion(Enum):
    """Families of base models."""

    UNKNOWN = 0
    SD1x = 1
    SD2x = 2
    SDXL = 3

    def is_compatible_with(self, other: StableDiffusionVersion) -> bool:
        """Only SDXL and what is known to be something else do not go together."""
        if StableDiffusionVersion.UNKNOWN in (self, other):
            return True
        return (self is StableDiffusionVersion.SDXL) == (other is StableDiffusionVersion.SDXL)


class AutoMachine(Enum):
    """States of the peers' attention injection."""

    Read = "Read"
    Write = "Write"
    StyleAlign = "StyleAlign"
