"""Preprocessors against controlnet_aux's on the same picture and weights, and the colour count of a map's resize."""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.spec import Runtime
from annotator.sd_controlnet.store import NetworkStore
from lib_controlnet.core.resize import LABEL_COLOURS, distinct_colours

from .measure import Goal, Progress, Result, Stopwatch, take_turns

SIZES = (512, 1024)
_QUICK_ROUNDS = 10
"""Times as many rounds for what takes milliseconds."""

Image = NDArray[np.uint8]


def _no_networks(_module: Any) -> tuple[nn.Module, ...]:
    return ()


def _anime(module: Any) -> tuple[nn.Module, ...]:
    norm = functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return (module.UnetGenerator(3, 1, 8, 64, norm_layer=norm),)


@dataclass(frozen=True)
class Peer:
    """A preprocessor of ours, and controlnet_aux's: the folder of its detector, and the networks it is made with."""

    id: str
    goal: Goal
    folder: str
    detector: str
    networks: Callable[[Any], tuple[nn.Module, ...]] = _no_networks


PEERS = (
    Peer("canny", Goal(1.0), "canny", "CannyDetector"),
    Peer("lineart_standard", Goal(0.5), "lineart_standard", "LineartStandardDetector"),
    Peer("shuffle", Goal(1.0), "shuffle", "ContentShuffleDetector"),
    Peer("hed", Goal(0.85), "hed", "HEDdetector", lambda module: (module.ControlNetHED_Apache2(),)),
    Peer("pidinet", Goal(1.0), "pidi", "PidiNetDetector", lambda module: (module.pidinet(),)),
    Peer("mlsd", Goal(1.0), "mlsd", "MLSDdetector", lambda module: (module.MobileV2_MLSD_Large(),)),
    Peer("lineart", Goal(1.0), "lineart", "LineartDetector", lambda module: (module.Generator(3, 1, 3), nn.Identity())),
    Peer("lineart_anime", Goal(1.0), "lineart_anime", "LineartAnimeDetector", _anime),
    Peer("softedge_teed", Goal(1.0), "teed", "TEEDdetector", lambda module: (module.TED(),)),
)
COLOURS = "unique_colours"
CASES = tuple(f"{case}_{size}" for case in (COLOURS, *(peer.id for peer in PEERS)) for size in SIZES)


def annotators(names: Collection[str], rounds: int, progress: Progress) -> list[Result]:
    """The cases of CASES among `names`."""
    results: list[Result] = []
    for size in SIZES:
        if f"{COLOURS}_{size}" in names:
            results.append(_unique_colours(size, rounds, progress))
        results += [_against_peer(peer, size, rounds, progress) for peer in PEERS if f"{peer.id}_{size}" in names]
    return results


def _against_peer(peer: Peer, size: int, rounds: int, progress: Progress) -> Result:
    """CPU seconds of one map of a picture of `size` x `size`, as a ratio."""
    picture = _picture(size)
    module = controlnet_aux(peer.folder)
    torch.manual_seed(0)
    networks = [network.eval() for network in peer.networks(module)]
    theirs = getattr(module, peer.detector)(*networks)
    stopwatch = Stopwatch()
    for network in networks:
        stopwatch.watch(network)
    with tempfile.TemporaryDirectory(prefix="controlnet-bench-") as folder:
        ours = _ours(peer.id, networks, Path(folder), stopwatch)
        actions = {
            f"controlnet_aux's {peer.id} at {size}": lambda: theirs(
                picture, detect_resolution=size, output_type="np", **_image_resolution(peer, size)
            ),
            f"our {peer.id} at {size}": lambda: ours(picture, resolution=size),
        }
        rounds *= 1 if networks else _QUICK_ROUNDS
        reference, seconds = take_turns(actions, rounds, progress, stopwatch).values()
    detail = f"{seconds:.4f} s against {reference:.4f} s"
    return Result(f"{peer.id}_{size}", seconds / reference, peer.goal, detail)


def _image_resolution(peer: Peer, size: int) -> dict[str, int]:
    """Most of its detectors scale their map once more, by default to 512; some know no such option."""
    return {} if peer.id in ("lineart_standard", "softedge_teed") else {"image_resolution": size}


class _Watched(NetworkStore):
    """Lets a stopwatch watch every network that is loaded."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch

    def get(self, key: str, make: Callable[[], Any], device: str = "cpu") -> Any:
        def watched() -> Any:
            network = make()
            self._stopwatch.watch(network)
            return network

        return super().get(key, watched, device)


def _ours(id_: str, networks: list[nn.Module], folder: Path, stopwatch: Stopwatch) -> Any:
    """Our detector, with the weights of the peer's first network."""
    entry = importlib.import_module("annotator.sd_controlnet.registry").discover().get(id_)
    for weights, network in zip(entry.spec.weights, networks, strict=False):
        path = folder / weights.folder / weights.name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    detector = entry.load(Runtime(weight_folders=(folder,), networks=_Watched(stopwatch)))
    detector(_picture(64), resolution=64)  # networks are loaded at the first picture
    return detector


def _unique_colours(size: int, rounds: int, progress: Progress) -> Result:
    """A map of 20 classes, of which every pixel must be looked at, against sd-webui-controlnet's way: sort all."""
    classes = np.random.default_rng(1).integers(0, 256, (20, 3), dtype=np.uint8)
    rows, columns = np.mgrid[0:size, 0:size] * 4 // size
    labels = classes[rows * 4 + columns]

    def by_sorting() -> int:
        pixels = labels.reshape(-1, 3)
        pixels = pixels[np.lexsort(pixels.T)]
        return 1 + int(np.any(pixels[1:] != pixels[:-1], axis=1).sum())

    actions = {
        f"colours by sorting at {size}": by_sorting,
        f"our colours at {size}": lambda: distinct_colours(labels, LABEL_COLOURS),
    }
    if len({action() for action in actions.values()}) != 1:
        raise RuntimeError("the two ways count differently")
    reference, seconds = take_turns(actions, rounds * _QUICK_ROUNDS, progress).values()
    return Result(f"{COLOURS}_{size}", seconds / reference, Goal(0.2), f"{seconds:.4f} s against {reference:.4f} s")


def _picture(size: int) -> Image:
    """Noise, smoothed until it has outlines."""
    noise = np.random.default_rng(2).normal(0, 1, (size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6.0)
    return (127.5 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)
