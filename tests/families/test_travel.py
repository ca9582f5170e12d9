"""Pictures that act as prompts at the key frames of a film: AnimateDiff's travel between prompts, written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lib_controlnet.core.embeddings import IMAGE
from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.frames import Film, Frames
from lib_controlnet.core.step import Step
from lib_controlnet.families.base import BaseModel, BoundControl, UnitSettings
from lib_controlnet.families.registry import discover, load_model
from tests.engine.test_session import FakeGeneration
from tests.families.driving import called, session_of, session_with, settings
from tests.families.ip_files import weights_of, write
from tests.families.test_ip_adapter import CPU, SIDE, ours, tensors, unet_of
from tests.nets.ldm_oracle import example, with_sizes
from tests.nets.sizes import SD1

FRAMES = 6
KEYS = (4, 1)  # in no order
PICTURES = [tensors("base", seed=seed) for seed in (3, 4)]


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """`AnimateDiffPromptSchedule.slerp`, for directions that differ."""
    unit, other = first / np.linalg.norm(first), second / np.linalg.norm(second)
    angle = np.arccos(float((unit * other).sum()))
    return (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)


def projected(given: dict[str, Tensor]) -> np.ndarray:
    weights = weights_of("base", SD1)["image_proj"]
    tokens = functional.linear(given[IMAGE], weights["proj.weight"], weights["proj.bias"]).reshape(4, -1)
    return functional.layer_norm(tokens, tokens.shape[-1:], weights["norm.weight"], weights["norm.bias"]).numpy()


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return load_model(write(tmp_path / "ip.safetensors", "base", SD1), CPU, discover())


def test_tokens_travel_between_key_frames(model: Any) -> None:
    film = Film(FRAMES, KEYS)
    bound = model.bind([], settings(SD1, tensors=PICTURES, film=film))
    last, first = map(projected, PICTURES)
    wanted = [first, first, slerp(first, last, 1 / 3), slerp(first, last, 2 / 3), last, last]
    assert np.abs(np.diff(wanted[1:5], axis=0)).max() > 0.1
    assert np.allclose(bound.tokens()[:FRAMES].detach().numpy(), wanted, atol=1e-5)


class Filmed:
    """A file's model with a film's pictures."""

    def __init__(self, model: Any) -> None:
        self.__dict__.update(vars(model), holds_base=False, from_fp8=False, embeddings=model.embeddings)
        self._model = model

    def bind(self, hints: Any, asked: UnitSettings) -> Any:
        return self._model.bind(hints, replace(asked, tensors=PICTURES, film=Film(FRAMES, KEYS)))


@pytest.mark.parametrize(("frame", "picture"), [(0, 1), (1, 1), (4, 0), (5, 0)])
def test_a_frame_hears_its_own_picture(model: Any, frame: int, picture: int) -> None:
    unet, inputs = unet_of(SD1), with_sizes(example(SD1))
    step = Step(inputs["x"], inputs["timesteps"], inputs["context"], None, (True, False), (frame, frame), 0.5)
    generation: Any = FakeGeneration(base=BaseModel(SD1, "tiny"))
    asked = Frames("nowhere", keys=KEYS)
    session = session_with([Filmed(model)], PICTURES[0], generation, (SIDE, SIDE), frames=asked)  # type: ignore[list-item]
    alone, plain = ours(model.path, SD1, PICTURES[picture])
    assert float((alone - plain).abs().max()) > 0.02
    assert torch.allclose(called(unet, step, session), alone, atol=1e-5)


def test_what_acts_as_a_prompt_otherwise_has_no_key_frames() -> None:
    with pytest.raises(UnitError, match="another way"):
        session_of(
            BoundControl(), embeddings={"last_hidden_state": torch.zeros(1, 4, 8)}, frames=Frames("x", keys=KEYS)
        )
