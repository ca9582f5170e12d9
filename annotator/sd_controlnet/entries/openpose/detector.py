"""OpenPose's networks around a picture: people with hands and faces, as JSON and as a drawing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...images import Array, Pixels, resize_and_pad
from ...libraries import controlnet_aux
from ...networks import load_network, to_tensor
from ...skeletons import Person, Point, draw, to_json
from ...spec import Detection, Runtime, WeightFile
from .body import Maps, find_bodies
from .face_net import FaceNet
from .parts import Box, face_box, find_face, find_hand, hand_box


class OpenPose:
    """`hand` and `face` are None where they are not looked for."""

    def __init__(
        self, runtime: Runtime, body: WeightFile, hand: WeightFile | None, face: WeightFile | None, draws_body: bool
    ) -> None:
        self._runtime = runtime
        self._body = body
        self._hand = hand
        self._face = face
        self._draws_body = draws_body

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        """The drawing (h, w, 3) on black and the JSON, whose canvas is the padded picture as in the peers."""
        padded, cut = resize_and_pad(image, resolution)
        height, width = padded.shape[:2]
        people = self.people(np.ascontiguousarray(padded[:, :, ::-1]))
        drawn = people if self._draws_body else [replace(person, body=()) for person in people]
        return Detection(cut(draw(drawn, (), height, width)), pose=to_json(people, (), height, width))

    def people(self, image: Pixels) -> list[Person]:
        """Everybody in (H, W, 3) uint8 BGR, in parts of the picture."""
        height, width = image.shape[:2]
        self._runtime.stage(0.0)
        bodies = find_bodies(image, self._body_maps)
        people: list[Person] = []
        for number, body in enumerate(bodies):
            self._runtime.stage((number + 1) / (len(bodies) + 1))
            scaled = [None if point is None else Point(point.x / width, point.y / height) for point in body]
            people.append(
                Person(
                    scaled,
                    left_hand=self._find_hand(hand_box(body[5], body[6], body[7], image), image),
                    right_hand=self._find_hand(hand_box(body[2], body[3], body[4], image), image),
                    face=self._find_face(face_box(body, image), image),
                )
            )
        return people

    def _find_hand(self, box: Box | None, image: Pixels) -> list[Point] | None:
        if box is None or self._hand is None:
            return None
        go_on = partial(self._runtime.stage, 0.5)
        return _placed(find_hand(box.cut(image), self._hand_maps, go_on), box, image)

    def _find_face(self, box: Box | None, image: Pixels) -> list[Point] | None:
        if box is None or self._face is None:
            return None
        return _placed(find_face(box.cut(image), self._face_maps), box, image) or None

    def _body_maps(self, image: Pixels) -> tuple[Maps, Maps]:
        network = self._runtime.network("openpose body", partial(self._load, self._body, "bodypose_model"))
        fields, heat = self._run(network, image)
        return fields[0].cpu().numpy(), heat[0].cpu().numpy()

    def _hand_maps(self, image: Pixels) -> Maps:
        assert self._hand is not None
        network = self._runtime.network("openpose hand", partial(self._load, self._hand, "handpose_model"))
        return self._run(network, image)[0].cpu().numpy()

    def _face_maps(self, image: Pixels) -> Maps:
        face = self._face
        assert face is not None
        network = self._runtime.network("openpose face", lambda: load_network(self._runtime, face, FaceNet))
        return self._run(network, image)[0].cpu().numpy()

    def _run(self, network: nn.Module, image: Pixels) -> Tensor:
        with torch.no_grad():
            return network(to_tensor(image, self._runtime) / 256 - 0.5)

    def _load(self, weight: WeightFile, name: str) -> nn.Module:
        make = getattr(controlnet_aux("open_pose.model"), name)
        own = {key.partition(".")[2]: key for key in make().state_dict()}

        def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            """The file lacks the name of the block that the library puts each layer in."""
            return {own.get(key, key): value for key, value in weights.items()}

        return load_network(self._runtime, weight, make, rename)


def _placed(points: list[tuple[int, int]], box: Box, image: Pixels) -> list[Point]:
    """Points of a cut-out as parts of the picture; a coordinate of 0 is one that was not found and becomes -1 pixel.

    In float32, as the peers: back in pixels some are rounded down to the pixel before, and so they are drawn.
    """
    height, width = image.shape[:2]
    placed = np.array([(x + box.x if x else -1, y + box.y if y else -1) for x, y in points], np.float32)
    return [Point(x, y) for x, y in placed.reshape(-1, 2) / np.array((width, height), np.float32)]
