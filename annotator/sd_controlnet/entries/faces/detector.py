"""The largest face of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ...images import Array, Pixels, resize_and_pad, resize_short_side, to_rgb
from ...onnx_files import refuse_external_data
from ...onnx_providers import CPU, Opened, Provider, opened, providers
from ...spec import AnnotatorError, Detection, Detector, Runtime, WeightFile
from ...weights import find

SIDE = 640
"""The finder sees the picture in a square of this size."""
SMALLER = tuple(range(576, 192, -64))
"""And where it finds nothing in smaller ones: a face that fills the picture is too large for it at first."""
CROP = 224
"""A face that is cut out for CLIP has this side, as IP-Adapter's authors trained with."""
SURE = 0.5
LIMBS = ((0, 2), (1, 2), (3, 2), (4, 2))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
HALF_WIDTH = 4
RADIUS = 10
DIMMED = 0.6
_BOX = (0, 255, 0)


class NoFace(AnnotatorError):
    """There is no face in the picture, or none that can be found."""


@dataclass(frozen=True)
class Finder:
    """InsightFace's two networks: one finds faces and five points of each, the other tells them apart.

    device: where their memory is.
    """

    detection: Any
    recognition: Any
    nbytes: int
    device: str = "cpu"

    def face(self, image: Pixels) -> tuple[Array, Array, float]:
        """The largest face's box (x0, y0, x1, y1), its points (5, 2) and how sure it is. Raises `NoFace`."""
        for side in (SIDE, *SMALLER):
            boxes, points = self.detection.detect(_bgr(image), input_size=(side, side), max_num=0, metric="default")
            if len(boxes):
                break
        else:
            raise NoFace("no face was found in the picture", remedy="use one in which a face is larger and not covered")
        largest = int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
        return boxes[largest, :4], points[largest], float(boxes[largest, 4])

    def embedding(self, image: Pixels) -> torch.Tensor:
        """(1, 512) float32, not normalised, of the largest face. Raises `NoFace`."""
        return self.identity(image)[0]

    def identity(self, image: Pixels) -> tuple[torch.Tensor, Array, Array]:
        """`embedding`, the box (x0, y0, x1, y1) and the five points (5, 2) of that face."""
        from insightface.app.common import Face  # pyright: ignore[reportMissingImports]

        box, points, sure = self.face(image)
        embedding = self.recognition.get(_bgr(image), Face(bbox=box, kps=points, det_score=sure))
        return _row(embedding), box, points

    def embedding_of_crop(self, face: Pixels) -> torch.Tensor:
        """(1, 512) float32, not normalised, of a picture that is one upright face and nothing else."""
        return _row(self.recognition.get_feat(_bgr(face)))


class Faces:
    """`weights`: finder's and recogniser's."""

    def __init__(self, runtime: Runtime, weights: Sequence[WeightFile]) -> None:
        self._runtime = runtime
        self._weights = weights

    def finder(self) -> Finder:
        """Both networks, on the device."""
        return self._runtime.network(self._weights[0].folder, self._load)

    def _load(self) -> Finder:
        from insightface import model_zoo  # pyright: ignore[reportMissingImports]

        wanted = providers(self._runtime.device)
        files = [find(weight, self._runtime) for weight in self._weights]
        finder, teller = (_read(model_zoo, file, wanted) for file in files)
        places = {one.place(self._runtime.device) for one in (finder, teller)}
        # a negative number takes the card away from it
        finder.network.prepare(-1 if finder.provider == CPU else 0, input_size=(SIDE, SIDE), det_thresh=SURE)
        nbytes = sum(file.stat().st_size for file in files)
        return Finder(finder.network, teller.network, nbytes, max(places, key=lambda place: place != "cpu"))


class FaceId(Faces):
    """The embedding at unit length, of the picture at its own size."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """face_embeds: (1, 512); raw_face_embeds: the same as it comes."""
        picture = to_rgb(image)
        embedding, *place = self.finder().identity(picture)
        return Detection(tensors=_told(embedding), shown=marked(picture, *place))


class FaceIdPlus(Faces):
    """The embedding at unit length beside what CLIP sees of the face, upright and cut out."""

    def __init__(self, runtime: Runtime, weights: Sequence[WeightFile], clip: Detector) -> None:
        super().__init__(runtime, weights)
        self._clip = clip

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """What `FaceId` and the CLIP entries give."""
        from insightface.utils import face_align  # pyright: ignore[reportMissingImports]

        picture = to_rgb(image)
        embedding, box, points = self.finder().identity(picture)
        found = self._clip(face_align.norm_crop(picture, points, CROP), resolution=resolution)
        assert isinstance(found, Detection)
        tensors = {**_told(embedding), **(found.tensors or {})}
        return Detection(tensors=tensors, shown=marked(picture, box, points))


class InstantIdEmbedding(Faces):
    """The embedding as it comes, of the picture at the resolution asked for."""

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """face_embeds: (1, 512)."""
        padded, cut = resize_and_pad(image, resolution)
        embedding, *place = self.finder().identity(padded)
        return Detection(tensors={"face_embeds": embedding}, shown=cut(marked(padded, *place)))


class InstantIdKeypoints(Faces):
    """Eyes, nose and corners of the mouth, found in the picture at its own size and drawn at the map's: its dots keep
    their size whatever the picture's is."""

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
        picture = to_rgb(image)
        _, points, _ = self.finder().face(picture)
        height, width = resize_short_side(image, resolution).shape[:2]
        scales = np.array([width / picture.shape[1], height / picture.shape[0]], np.float32)
        return draw(points * scales, height, width)


def draw(points: Array, height: int, width: int) -> Pixels:
    """(5, 2) x, y in pixels as InstantID's network learned them: dim limbs to the nose, bright discs over them."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for start, end in LIMBS:
        (x0, y0), (x1, y1) = points[start], points[end]
        middle = (int((x0 + x1) / 2), int((y0 + y1) / 2))
        angle = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
        half_length = int(math.hypot(x0 - x1, y0 - y1) / 2)
        limb = np.asarray(cv2.ellipse2Poly(middle, (half_length, HALF_WIDTH), angle, 0, 360, 1))
        cv2.fillConvexPoly(canvas, limb, COLOURS[start])
    canvas = (canvas * DIMMED).astype(np.uint8)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        cv2.circle(canvas, (int(x), int(y)), RADIUS, colour, -1)
    return canvas


def marked(picture: Pixels, box: Array, points: Array) -> Pixels:
    """A copy of (H, W, 3) with the face's box (x0, y0, x1, y1) and its points (5, 2), for the user to see."""
    canvas = np.array(picture, np.uint8)
    width = max(2, min(canvas.shape[:2]) // 200)
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX, width)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        cv2.circle(canvas, (round(float(x)), round(float(y))), 2 * width, colour, -1)
    return canvas


def _told(embedding: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"face_embeds": embedding / embedding.norm(dim=1, keepdim=True), "raw_face_embeds": embedding}


def _row(embedding: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(embedding, np.float32).reshape(1, -1))


def _bgr(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[:, :, ::-1])


def _read(model_zoo: Any, file: Path, wanted: list[Provider]) -> Opened[Any]:
    refuse_external_data(file)

    def make(chosen: list[Provider]) -> Any:
        return model_zoo.get_model(str(file), providers=chosen)

    try:
        read = opened(file.name, wanted, make, lambda network: _used(network) or [wanted[0][0]])
    except Exception as error:  # onnxruntime has a class for each fault, none of them public
        raise AnnotatorError(
            f"{file.name} cannot be read: it is damaged or truncated",
            found=f"{type(error).__name__}: {error}",
            remedy=f"delete {file} and get it again",
        ) from error
    if read.network is None:
        raise AnnotatorError(f"{file.name} is not a network of InsightFace", remedy=f"delete {file} and get it again")
    return read


def _used(network: Any) -> list[str]:
    """The providers of one of InsightFace's networks; of no network, none."""
    session = getattr(network, "session", None)
    return [] if session is None else session.get_providers()
