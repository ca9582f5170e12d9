"""Control-LoRA (Stability AI): a ControlNet whose weights are the base's own with low-rank changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...loading.lazy import outline
from ...loading.low_rank import MARK, STABILITY
from ...loading.on_base import COPIED
from ...nets.config import ControlNetConfig
from ...nets.controlnet import ControlNet
from ...nets.unet import UNetModel
from ..config import TrainConfig
from .base import Control, Writer, load_into, other_kind, started
from .controlnet import fresh, write_file
from .low_rank import change, share, unchanged
from .residuals import ResidualControl


class ControlLoraKind:
    id = "control_lora"
    modelspec = "control-lora"
    latent_hints = False

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": write_file}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """Factors of `control.rank`, or those of the Control-LoRA `base.start`; biases, norms and layers too small for
        factors learn whole."""
        weights = started(config, unet)
        if weights is None:
            net = fresh(unet, config)
            change(net, config.control.rank, _is_copied)
        else:
            net = _opened(unet, weights, config)
        share(net, unet)
        return ControlLora(net)


KIND = ControlLoraKind()


class ControlLora(ResidualControl):
    """`net` is a ControlNet with `Changed` layers."""

    def trained(self) -> list[nn.Parameter]:
        """All but the weights that are the U-Net's."""
        shared = (".base.weight", ".base.scale")
        return [weight for name, weight in self.net.named_parameters() if not name.endswith(shared)]

    def weights(self) -> dict[str, Tensor]:
        own = {unchanged(name): weight.detach() for name, weight in self.named_trained()}
        return {MARK: torch.empty(0), **own}


def _is_copied(name: str, layer: nn.Module) -> bool:
    del layer
    return name.startswith(COPIED)


def _opened(unet: UNetModel, weights: Mapping[str, Tensor], config: TrainConfig) -> ControlNet:
    """Of a file's factors."""
    down = STABILITY.down
    ranks = {key.removesuffix(down): outline(weights, key).shape[0] for key in weights if key.endswith(down)}
    if not ranks or "input_hint_block.0.weight" not in weights:
        raise other_kind(
            config, "no factors of a Control-LoRA in it", "one, or make one of a ControlNet by extract-lora"
        )
    sizes = ControlNetConfig.from_weights({**dict(unet.state_dict()), **{k: outline(weights, k) for k in weights}})
    net = ControlNet(sizes)
    change(net, ranks, lambda name, _: name in ranks)
    theirs = unet.state_dict()
    whole = {
        key: weights[unchanged(key)] if unchanged(key) in weights else theirs[unchanged(key)]
        for key in net.state_dict()
        if unchanged(key) in weights or unchanged(key) in theirs
    }
    load_into(net, whole, config)
    return net
