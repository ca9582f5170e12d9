"""CtrLoRA (Xu et al., arXiv:2410.09400): a condition as low-rank changes to a ControlNet that reads maps as latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ...loading.detect import CTRLORA_BASE
from ...loading.low_rank import CTRLORA
from ...nets.config import ControlNetConfig
from ...nets.controlnet import trainable_copy
from ...nets.ctrlora import LatentControlNet
from ...nets.unet import UNetModel
from ..config import TrainConfig
from ..export import write_weights
from ..narrow import widened_state
from .base import Control, Writer, beside, fitting, load_into, other_kind, started
from .controlnet import write_file
from .low_rank import Changed, change, share, unchanged
from .residuals import ResidualControl

_WHOLE = ("zero_convs.", "middle_block_out.", "norm")
"""Parts of the names of what learns whole, as the authors' files have it."""
_PREFIX = "control_model."


class CtrLoraKind:
    id = "ctrlora"
    modelspec = "ctrlora"
    latent_hints = True

    @property
    def formats(self) -> Mapping[str, Writer]:
        return {"v1.1": _write}

    def new(self, unet: UNetModel, config: TrainConfig) -> Control:
        """Factors of `control.rank` on the base ControlNet `base.start`; without one, on a copy of the U-Net's encoder,
        which is then written beside the model."""
        fitting(config, "" if unet.config.adm_channels is None else "the kind is for SD 1.x and 2.x")
        weights = started(config, unet)
        with beside(unet):
            net = LatentControlNet(ControlNetConfig(unet.config))
        if weights is not None:
            if not CTRLORA_BASE.matches(weights.keys()):
                raise other_kind(config, "no ControlNet without a hint encoder", "a base of CtrLoRA's authors")
            own = {key: weights[key] for key in weights if ".lora_layer." not in key}
            load_into(net, own, config)
        else:
            copied = trainable_copy(unet).state_dict()
            load_into(net, {key: copied[key] for key in net.state_dict()}, config)
        change(net, config.control.rank, _is_matrix)
        if weights is None:
            share(net, unet)
        return CtrLora(net, own_base=weights is None)


KIND = CtrLoraKind()


class CtrLora(ResidualControl):
    """`own_base`: the base was made of the U-Net, and its users have it from nowhere else."""

    latent_hints = True

    def __init__(self, net: nn.Module, own_base: bool) -> None:
        super().__init__(net)
        self.own_base = own_base

    def trained(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.net.named_parameters() if _learns(name)]

    def learn(self) -> None:
        self.net.requires_grad_(False)
        super().learn()

    def weights(self) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for name, weight in self.named_trained():
            module, _, leaf = name.rpartition(".")
            factors = {"up": CTRLORA.up, "down": CTRLORA.down}
            key = module + factors[leaf] if leaf in factors else name
            made[_PREFIX + key] = weight.detach()
        return made

    def base_weights(self) -> dict[str, Tensor]:
        """The ControlNet that is changed."""
        factors = {
            f"{name}.{part}"
            for name, module in self.net.named_modules()
            if isinstance(module, Changed)
            for part in ("up", "down")
        }
        return {_PREFIX + unchanged(k): v for k, v in widened_state(self.net).items() if k not in factors}


def _learns(name: str) -> bool:
    return name.endswith((".up", ".down")) or any(part in name for part in _WHOLE)


def _is_matrix(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.weight.dim() == 2 and not any(part in name for part in _WHOLE)


def _write(control: CtrLora, path: Path, metadata: Mapping[str, str]) -> Mapping[str, Path]:
    files = dict(write_file(control, path, metadata))
    if control.own_base:
        files["ctrlora_base"] = path.with_name(f"{path.name}_basecn.safetensors")
        write_weights(control.base_weights(), files["ctrlora_base"], {})
    return files
