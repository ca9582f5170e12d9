"""The face next to the picture's middle, upright at 512x512, without what is not the face."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

from ...images import Array, Pixels, resize_and_pad
from ...networks import load_network, normalised, to_tensor
from ...spec import AnnotatorError, Runtime, WeightFile

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAST_SCORE = 0.97
_SIDE = 512
_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Where eyes, nose and corners of the mouth come to lie: those of FFHQ's faces, as facexlib aligns them."""
_BEYOND = (135, 133, 132)
"""What is outside of the picture, blue first."""
_NOT_THE_FACE = (0, 7, 8, 9, 14, 15, 16, 18)
"""Of BiSeNet's 19 classes: background, ears and earring, neck and necklace, clothes, hat."""
_CLASSES = 19
_GREY = (0.299, 0.587, 0.114)


class FaceFeatures:
    """The map is a face of 512x512 pixels whatever the picture's size; the picture is looked at with a short side of
    512, as sd-webui-controlnet does without a slider."""

    def __init__(self, runtime: Runtime, finder: WeightFile, parts: WeightFile) -> None:
        self._runtime = runtime
        self._finder = finder
        self._parts = parts

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (512, 512, 3)."""
        padded, _ = resize_and_pad(image, resolution)
        levels = (self.plane(self.face(padded))[0, 0] * 255.0).to(torch.uint8).cpu().numpy()
        return np.repeat(levels[:, :, None], 3, axis=2)

    def face(self, picture: Pixels) -> Pixels:
        """(H, W, 3) to the face next to its middle, (512, 512, 3), upright."""
        finder: Any = self._runtime.network("facexlib/finder", self._load_finder)
        self._runtime.stage(0.1)
        finder.device = torch.device(self._runtime.device)  # where it puts what it computes with
        with torch.no_grad():
            # rows of box, score, and x and y of five points
            found = finder.detect_faces(np.ascontiguousarray(picture[:, :, ::-1]), _LEAST_SCORE)
        if not len(found):
            raise AnnotatorError("no face was found", remedy="choose a picture whose face is larger or clearer")
        self._runtime.stage(0.6)
        return aligned(picture, found)

    def plane(self, face: Pixels) -> torch.Tensor:
        """(512, 512, 3) to (1, 1, 512, 512) in 0..1: grey where the face is, 1 elsewhere."""
        network: Any = self._runtime.network("facexlib/parts", self._load_parts)
        with torch.no_grad():
            pixels = to_tensor(face, self._runtime) / 255.0
            classes = network(normalised(pixels, _MEAN, _STD))[0].argmax(dim=1, keepdim=True)
            grey = sum(weight * pixels[:, channel, None] for channel, weight in enumerate(_GREY))
            beyond = (classes == pixels.new_tensor(_NOT_THE_FACE).view(1, -1, 1, 1)).any(dim=1, keepdim=True)
            return torch.where(beyond, torch.ones_like(pixels[:, :1]), grey)

    def _load_finder(self) -> torch.nn.Module:
        library = _facexlib("detection.retinaface")
        return load_network(
            self._runtime,
            self._finder,
            lambda: library.RetinaFace(network_name="resnet50", half=False, device=torch.device("cpu")),
        )

    def _load_parts(self) -> torch.nn.Module:
        library = _facexlib("parsing.bisenet")
        return load_network(self._runtime, self._parts, lambda: library.BiSeNet(num_class=_CLASSES))


def aligned(image: Pixels, faces: Array) -> Pixels:
    """(H, W, 3) and rows as RetinaFace gives them to (512, 512, 3): the face whose box is nearest to the middle."""
    middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
    away = np.linalg.norm((faces[:, :2] + faces[:, 2:4]) / 2 - middle, axis=1)
    points = faces[away.argmin(), 5:15].reshape(5, 2)
    matrix = cv2.estimateAffinePartial2D(points, _TEMPLATE, method=cv2.LMEDS)[0]
    if matrix is None:
        raise AnnotatorError(
            "the face that was found cannot be aligned",
            found=f"points {points.round().tolist()}",
            remedy="choose a picture whose face is larger or clearer",
        )
    face = cv2.warpAffine(image, matrix, (_SIDE, _SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=_BEYOND[::-1])
    return np.ascontiguousarray(face, np.uint8)


def _facexlib(part: str) -> ModuleType:
    try:
        return importlib.import_module(f"facexlib.{part}")
    except (ImportError, RuntimeError) as error:
        raise AnnotatorError(
            "the Python package facexlib cannot be imported",
            found=f"{type(error).__name__}: {error}",
            remedy="install facexlib, and the release of torchvision that belongs to this torch",
        ) from error
