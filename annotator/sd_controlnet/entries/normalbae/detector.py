"""The normals as a map: red is left, green is up, blue is towards the viewer."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ...images import Array, Pixels, resize_and_pad
from ...libraries import controlnet_aux
from ...networks import load_network, normalised, to_pixels, to_tensor
from ...spec import Runtime, WeightFile

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SUBMODULES = "normalbae.nets.submodules"


class NormalBae:
    """The network's directions as they are, not made of length 1 again: so the peers' maps are."""

    def __init__(self, runtime: Runtime, weights: WeightFile) -> None:
        self._runtime = runtime
        self._weights = weights

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        network: Any = self._runtime.network("normalbae", self._load)
        with torch.no_grad():
            pixels = normalised(to_tensor(padded, self._runtime) / 255.0, _MEAN, _STD)
            finest = network(pixels)[0][-1][0, :3]
            return cut(to_pixels(((finest + 1.0) * 0.5).clip(0, 1) * 255.0))

    def _load(self) -> nn.Module:
        return load_network(self._runtime, self._weights, _Network)


class _Network(nn.Module):
    """controlnet_aux's NNET; its own encoder goes through torch.hub, which writes to the console and to caches."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        settings = SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
        self.decoder: nn.Module = controlnet_aux(f"{_SUBMODULES}.decoder").Decoder(settings)

    def forward(self, pixels: Tensor) -> Any:
        return self.decoder(self.encoder(pixels))


class _Encoder(nn.Module):
    """EfficientNet-B5 without its classifier; every part's output is kept, as the decoder counts them."""

    def __init__(self) -> None:
        super().__init__()
        efficientnet = _geffnet("gen_efficientnet")
        self.original_model: nn.Module = efficientnet.tf_efficientnet_b5_ap(pretrained=False)
        self.original_model.global_pool = nn.Identity()
        self.original_model.classifier = nn.Identity()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        features = [pixels]
        for name, part in self.original_model.named_children():
            for step in part.children() if name == "blocks" else (part,):
                features.append(step(features[-1]))
        return features


def _geffnet(part: str) -> ModuleType:
    """A module of controlnet_aux's copy of geffnet, whose modules import one another as if that was installed."""
    folder = f"{_SUBMODULES}.efficientnet_repo.geffnet"
    package = sys.modules[str(controlnet_aux(f"{folder}.config").__package__)]
    if "geffnet" not in sys.modules and importlib.util.find_spec("geffnet") is None:
        sys.modules["geffnet"] = package
    return controlnet_aux(f"{folder}.{part}")
