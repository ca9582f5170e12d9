"""LeReS's depth as a map, near is white."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...libraries import controlnet_aux
from ...networks import load_network, normalised, ready, to_tensor
from ...spec import Runtime, WeightFile
from .boost import boosted

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MERGED_SIDE = 1024


class Leres:
    """`merger`: the weights that merge estimates of several sizes, or None for one estimate."""

    def __init__(self, runtime: Runtime, weights: WeightFile, merger: WeightFile | None) -> None:
        self._runtime = runtime
        self._weights = weights
        self._merger = merger

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3). params: the parts, in %, that are cut off in front and behind."""
        padded, cut = resize_and_pad(image, resolution)
        height, width = padded.shape[:2]
        if self._merger is None:
            depth = self._estimate(padded, width, height)
        else:
            depth = boosted(padded, self._estimate, self._merge, self._runtime.stage)
        near, behind = (*params, *(0.0, 0.0)[len(params) :])[:2]
        return grey_to_rgb(cut(near_white(depth, near, behind)))

    def _estimate(self, image: Pixels, width: int, height: int) -> Array:
        """(H, W, 3) uint8 to (H, W) float, greater is farther: the network sees `width` x `height`.

        It sees blue first and 0..255 under the statistics for 0..1, as in all the peers; so were the maps made.
        """
        network: Any = self._runtime.network("leres", self._load)
        seen = cv2.resize(np.ascontiguousarray(image[:, :, ::-1]), (width, height))
        with torch.no_grad():
            depth = network(normalised(to_tensor(seen, self._runtime), _MEAN, _STD))
        found = depth.squeeze().cpu().numpy()
        return cv2.resize(found, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)

    def _merge(self, coarse: Array, fine: Array) -> Array:
        """Two estimates, (H, W) float, to (1024, 1024) in 0..1: the first with the detail of the second."""
        network: Any = self._runtime.network("leres/merger", self._load_merger)
        with torch.no_grad():
            both = torch.cat([self._plane(coarse), self._plane(fine)], dim=1)
            return ((network(both) + 1.0) / 2.0).squeeze().cpu().numpy()

    def _plane(self, depth: Array) -> Tensor:
        size = (_MERGED_SIDE, _MERGED_SIDE)
        resized = cv2.resize(depth, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        least, greatest = resized.min(), resized.max()
        spread = greatest - least if greatest > least else np.float32(1.0)
        return to_tensor(((resized - least) / spread * 2.0 - 1.0)[:, :, None], self._runtime)

    def _load(self) -> nn.Module:
        model = controlnet_aux("leres.leres.multi_depth_model_woauxi").RelDepthModel
        whole: Any = load_network(self._runtime, self._weights, lambda: model(backbone="resnext101"))
        return ready(whole.depth_model, self._runtime)

    def _load_merger(self) -> nn.Module:
        assert self._merger is not None
        return load_network(self._runtime, self._merger, _merger)


def _merger() -> nn.Module:
    """controlnet_aux's U-Net of pix2pix, without its options, which read the command line of the host."""
    networks = controlnet_aux("leres.pix2pix.models.networks")
    return networks.UnetGenerator(2, 1, 10, 64, norm_layer=networks.get_norm_layer("none"), use_dropout=False)


def near_white(depth: Array, near: float, behind: float) -> Pixels:
    """(H, W) float, greater is farther, to 0..255; black where among the nearest `near` % or the last `behind` %.

    Over 16 bits, with the peers' roundings.
    """
    depth = depth - depth.min()
    greatest = depth.max()
    scaled = 65535.0 * depth / greatest if greatest > np.finfo("float").eps else np.zeros(depth.shape)
    levels = cv2.convertScaleAbs(scaled.astype(np.uint16), alpha=255.0 / 65535.0)
    if near:
        levels = cv2.threshold(levels, near / 100 * 255, 255, cv2.THRESH_TOZERO)[1]
    levels = cv2.bitwise_not(levels)
    if behind:
        levels = cv2.threshold(levels, behind / 100 * 255, 255, cv2.THRESH_TOZERO)[1]
    return levels.astype(np.uint8, copy=False)
