"""What a kind of control is to the trainer: how it begins, what of it learns, how it acts, what its files are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.errors import ModelFileError
from ...loading.canonical import canonical
from ...loading.lazy import outlines
from ...loading.reader import read_weights
from ...nets.unet import UNetModel
from ..config import TrainConfig
from ..errors import TrainingError

Writer = Callable[[Any, Path, Mapping[str, str]], Mapping[str, Path]]
"""(control, path without suffix, metadata): writes a format and says which files or folders it made of what it is."""


class Control(nn.Module):
    """A control of one kind in training; `net` is its network. What a kind does not override holds for a network that
    is trained as a whole and acts without noticing weights of the U-Net."""

    latent_hints = False
    """The maps are given as latents (B, 4, h, w), not as pixels (B, 3, 8h, 8w) in 0..1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def trained(self) -> list[nn.Parameter]:
        """What this training is about; not all of it needs a gradient at every time."""
        return list(self.net.parameters())

    def learn(self) -> None:
        """Asks gradients for what is trained, and for nothing else of its own."""
        for weight in self.trained():
            weight.requires_grad_(True)

    def encode(self, hints: Tensor) -> Any:
        """What follows from the maps alone: once is enough for all steps of a sampling."""
        raise NotImplementedError

    def predict(
        self, unet: UNetModel, x: Tensor, timesteps: Tensor, context: Tensor, features: Any, y: Tensor | None = None,
        weight: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """The U-Net's answer (B, 4, h, w) under control of `features`, for noisy latents x (B, 4, h, w), timesteps
        (B,), context (B, N, D) and, for SDXL, y (B, adm). Where no weight asks for a gradient no graph is made."""
        raise NotImplementedError

    def use_checkpointing(self) -> None:
        """Activations are computed again in the backward pass; the U-Net's blocks do so already."""

    def weights(self) -> dict[str, Tensor]:
        """Of its file, under the names by which its users' tools know them."""
        return dict(self.net.state_dict())

    def named_trained(self) -> list[tuple[str, nn.Parameter]]:
        """`trained`, each with its name in the network."""
        names = {id(weight): name for name, weight in self.net.named_parameters()}
        return [(names[id(weight)], weight) for weight in self.trained()]


class Kind(Protocol):
    """`id`: as `control.kind` names it. `modelspec`: ModelSpec's name of such a file. `formats`: what it can be
    written in. `latent_hints`: see `Control`."""

    id: str
    modelspec: str
    latent_hints: bool

    @property
    def formats(self) -> Mapping[str, Writer]: ...

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """The control to be trained on `unet`: fresh, drawing from torch's generator, or from the file `base.start`.

        On the meta device nothing is read but sizes. Raises TrainingError or ModelFileError.
        """
        ...


def beside(unet: UNetModel) -> torch.device:
    """Where the U-Net is; as a context, what is built in it is there too."""
    return next(unet.parameters()).device


def started(config: TrainConfig, unet: UNetModel) -> Mapping[str, Tensor] | None:
    """The weights of the file `base.start` under canonical names; None without one. On the meta device shapes only."""
    path = config.base.start
    if path is None:
        return None
    return canonical(read_weights(path, shapes_only=next(unet.parameters()).is_meta).weights)


def other_kind(config: TrainConfig, found: str, wanted: str) -> TrainingError:
    """Of a file `base.start` that this training cannot go on from."""
    return TrainingError(f'"{_begun(config)}" cannot be gone on from', field="base.start", found=found,
                         remedy=f"choose {wanted}")  # fmt: skip


def fitting(config: TrainConfig, problem: str) -> None:
    """Raises TrainingError where `problem`, of a control and this checkpoint's U-Net, is not empty."""
    if problem:
        raise TrainingError(f'no control of the kind "{config.control.kind}" can be trained for this checkpoint',
                            field="control.kind", found=problem,
                            remedy="choose another kind or checkpoint")  # fmt: skip


def load_into(net: nn.Module, weights: Mapping[str, Tensor], config: TrainConfig) -> None:
    """Fills `net` to the last tensor, with those of the file `base.start`. Raises ModelFileError with what does not
    fit."""
    own, shapes = net.state_dict(), outlines(weights)
    odd = [key for key in {*own, *shapes} if key not in own or key not in shapes or own[key].shape != shapes[key].shape]
    if odd:
        raise ModelFileError(f'"{_begun(config)}" has other tensors than this training', field="base.start",
                             found=", ".join(sorted(odd)[:4]), remedy="choose another file")  # fmt: skip
    if not next(net.parameters()).is_meta:
        net.load_state_dict({key: weights[key].to(torch.float32) for key in own})


def _begun(config: TrainConfig) -> str:
    """The name of the file `base.start`."""
    return "" if config.base.start is None else config.base.start.name
