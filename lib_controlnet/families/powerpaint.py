"""PowerPaint v2 (arXiv 2312.03594) for SD 1.x: a BrushNet that hears what is to be done with the hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import ModelFileError
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.step import Step
from ..loading.build import fill
from ..loading.companion import companion
from ..loading.detect import POWERPAINT_TEXT, KeyCondition
from ..loading.lazy import outlines
from ..nets.brushnet import BrushNet
from ..nets.config import UNetConfig
from ..nets.task_text import TASKS, TaskText, TaskTextConfig
from .base import BaseModel, Runtime, Sheet, UnitSettings, Weights, check_base, describe_config, disagreements
from .brushnet import BoundBrushNet, LoadedBrushNet, filled

_OPTION = "powerpaint"
"""Under which a preprocessor's data sheet names the task."""
_CONTEXT, _SHAPE, _OBJECT = TASKS
_NOTHING = ""


@dataclass(frozen=True)
class Heard:
    """What cond rows hear of a task, and what the others do: of two words each, mixed by how tightly a shape fits."""

    cond: tuple[str, str]
    uncond: tuple[str, str]


_TASKS: Mapping[str, Heard] = {
    "object": Heard((_OBJECT, _OBJECT), (_OBJECT, _OBJECT)),
    "shape": Heard((_SHAPE, _CONTEXT), (_SHAPE, _CONTEXT)),
    "removal": Heard((_CONTEXT, _CONTEXT), (_OBJECT, _OBJECT)),
    "outpainting": Heard((_CONTEXT, _CONTEXT), (_OBJECT, _OBJECT)),
    "context": Heard((_CONTEXT, _CONTEXT), (_NOTHING, _NOTHING)),
}
"""By what the preprocessor's data sheet asks for; the authors' demo, and "context aware" of ComfyUI-BrushNet."""
_USUAL = "object"
"""For a picture and mask from a preprocessor that knows nothing of tasks."""


class PowerPaintFamily:
    """Detects by a BrushNet's connections beside attentions."""

    id = "powerpaint"
    shares: Mapping[str, float] = {"SD 1.x": 1.028}
    before: Sequence[str] = ("controlnet",)
    condition = KeyCondition(
        all_of=("zero_convs.0.0.weight", "up_zero_convs.0.0.weight", "input_blocks.0.0.weight"),
        any_of=("input_blocks.1.1.*", "middle_block.1.*"),
        none_of=("input_hint_block.0.weight",),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedPowerPaint:
        """Builds the network, and keeps of the text encoder beside it what it says of each word.

        Raises ModelFileError where names or shapes do not fit, and without the text encoder.
        """
        del metadata
        net = filled(path, weights, runtime)
        words = _words(path)
        width = next(iter(words.values())).shape[-1]
        if width != net.config.context_dim:
            raise ModelFileError(
                f'"{path.name}" and the text encoder beside it are not of one model',
                field="model",
                found=f"a network that hears {net.config.context_dim} numbers a token, an encoder that says {width}",
                remedy="download both files again (PowerPaint-v2-1's folder PowerPaint_Brushnet)",
            )
        return LoadedPowerPaint(path, net, words)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        config = UNetConfig.from_weights(outlines(weights))
        return Sheet(0, describe_config(config), lambda base: not _disagreement(config, base.config))


FAMILY = PowerPaintFamily()


class LoadedPowerPaint(LoadedBrushNet):
    """One file's network and what its attentions hear."""

    options = (_OPTION,)

    def __init__(self, path: Path, net: BrushNet, words: Mapping[str, Tensor]) -> None:
        """words: (N, D) float32 of each word, and of "" for an empty prompt."""
        super().__init__(path, net)
        self._words = words

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has other layers, or reads another text encoder."""
        config = self.net.config
        check_base(self.path, base, describe_config(config), _disagreement(config, base.config))

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundPowerPaint:
        """The network with pictures in which a mask says what to paint: one, or one for each image of the batch."""
        heard = _TASKS[str(settings.options.get(_OPTION, _USUAL))]
        fit = settings.params[0] if heard.cond[0] != heard.cond[1] and settings.params else 1.0
        told = [
            torch.lerp(self._words[second], self._words[first], fit) for first, second in (heard.cond, heard.uncond)
        ]
        return BoundPowerPaint(self, self.known(hints, settings), torch.stack(told))


class BoundPowerPaint(BoundBrushNet):
    """The network with one unit's pictures and task."""

    def __init__(self, model: LoadedPowerPaint, known: Tensor, told: Tensor) -> None:
        """told: (2, N, D), for cond rows and for the others."""
        super().__init__(model, known)
        self._told = Placed(told)

    def heard(self, step: Step) -> Tensor:
        """The task's words; the prompt is the base's business alone."""
        net = self._model.net
        told = self._told.on(self._model.residence.place, net.dtype)
        return step.kept.of(told, tuple(0 if cond else 1 for cond in step.is_cond))


def _words(path: Path) -> dict[str, Tensor]:
    """What the text encoder beside `path` says of each word, and of none. Raises ModelFileError without one."""
    weights = companion(
        path,
        POWERPAINT_TEXT,
        f'"{path.name}" is a PowerPaint model, which needs the text encoder that was trained with it',
        "put pytorch_model.bin of the same folder of JunhaoZhuang/PowerPaint-v2-1 beside it, under any name",
    )
    config = TaskTextConfig.from_weights(outlines(weights))
    net = fill(
        lambda: TaskText(config),
        weights,
        dtype=torch.float32,
        device="cpu",
        name="PowerPaint's text encoder",
        ignored=("*.position_ids",),
    )
    words = (*TASKS, _NOTHING)
    with torch.no_grad():
        return dict(zip(words, net(words), strict=True))


def _disagreement(own: UNetConfig, base: UNetConfig) -> str:
    """Why it cannot add to the base's layers, or its words mean nothing beside the base's; "" where they do."""
    return disagreements(
        ("input blocks", own.input_channels, base.input_channels, own.input_channels == base.input_channels),
        ("text width", own.context_dim, base.context_dim, own.context_dim == base.context_dim),
        ("width of y", own.adm_channels, base.adm_channels, own.adm_channels == base.adm_channels),
    )
