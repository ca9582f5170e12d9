"""What every preprocessor with a network promises, with random weights: a new folder is covered without a new test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.registry import Entry, Registry, discover
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Runtime
from annotator.sd_controlnet.store import NetworkStore
from annotator.sd_controlnet.weights import MissingWeights

from .makers import can_make, random_runtime

EFFECTS = ("reference", "tile_colorfix", "inpaint_only", "recolor")
REGISTRY: Registry = discover(EFFECTS)
WITH_WEIGHTS = [entry for entry in REGISTRY.entries if entry.spec.weights]
every_network = pytest.mark.parametrize("entry", WITH_WEIGHTS, ids=lambda entry: entry.spec.id)
every_makeable = pytest.mark.parametrize(
    "entry", [entry for entry in WITH_WEIGHTS if can_make(entry.spec)], ids=lambda entry: entry.spec.id
)


SHAPES = ((50, 83, 1), (1, 1, 3), (64, 64, 4))
SLOW = ("mobile_sam",)


def heavy(entry: Entry) -> bool:
    """Whether its networks take seconds a picture: then one picture must do."""
    return sum(weight.size for weight in entry.spec.weights) > 100_000_000 or entry.spec.id in SLOW


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segment Anything asks for 1024 points, which takes minutes here; its own tests do."""
    monkeypatch.setattr("annotator.sd_controlnet.entries.sam.detector.POINTS_PER_SIDE", 2)


CASES = [
    pytest.param(entry, shape, id=f"{entry.spec.id}-{shape}")
    for entry in WITH_WEIGHTS
    if can_make(entry.spec)
    for shape in SHAPES[: 1 if heavy(entry) else None]
]


@pytest.fixture(scope="module")
def store() -> NetworkStore:
    """Entries that share a network, neighbours in the list, load it once."""
    return NetworkStore(limit=1 << 30)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0).reshape(height, width, channels)


def run(entry: Entry, runtime: Runtime, image: np.ndarray, resolution: int = 64) -> Detection:
    spec = entry.spec
    mask = np.zeros(image.shape[:2], np.uint8) if spec.requires_mask else None
    found = entry.load(runtime)(image, resolution=resolution, params=spec.resolve_params(), mask=mask)
    return found if isinstance(found, Detection) else Detection(found)


@every_network
def test_missing_weights_are_named(entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        run(entry, Runtime(weight_folders=(tmp_path,)), picture(64, 64))
    text = str(caught.value)
    weight = next(weight for weight in entry.spec.weights if weight.name in text)
    assert str(tmp_path) in text
    assert weight.folder in text
    assert weight.source in text
    assert " MB" in text or " GB" in text


@pytest.mark.parametrize(("entry", "shape"), CASES)
def test_a_picture_becomes_a_map_or_an_embedding(
    entry: Entry, shape: tuple[int, int, int], folder: Path, store: NetworkStore
) -> None:
    runtime = replace(random_runtime(entry.spec, folder), networks=store)
    image = picture(*shape)
    before = image.copy()
    found = run(entry, runtime, image)
    assert np.array_equal(image, before)
    if not entry.spec.returns_image:
        assert found.map is None
        assert found.tensors
        return
    assert found.map is not None
    assert found.map.dtype == np.uint8
    assert found.map.ndim == 3
    assert found.map.shape[2] == (4 if entry.spec.keeps_alpha else 3)
    assert found.map.flags.c_contiguous
    if not heavy(entry):
        again = run(entry, runtime, image).map
        assert again is not None
        assert np.array_equal(found.map, again)


@every_makeable
def test_damaged_weights_are_refused(entry: Entry, tmp_path: Path, folder: Path) -> None:
    random_runtime(entry.spec, folder)
    for weight in entry.spec.weights:
        whole = folder / weight.folder / weight.name
        file = tmp_path / weight.folder / weight.name
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole.open("rb") as opened:
            file.write_bytes(opened.read(min(whole.stat().st_size // 2, 1 << 20)))
    with pytest.raises(AnnotatorError, match=r"damaged|truncated"):
        run(entry, Runtime(weight_folders=(tmp_path,)), picture(64, 64))


def test_a_host_that_replaced_torch_load_is_not_asked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AUTOMATIC1111's returns None for files that newer PyTorch wrote."""
    entry = REGISTRY.get("hed")
    runtime = random_runtime(entry.spec, folder)
    monkeypatch.setattr(torch, "load", lambda *_args, **_options: None)
    assert run(entry, runtime, picture(64, 64)).map is not None


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    spec = REGISTRY.get("hed").spec
    file = tmp_path / spec.weights[0].folder / spec.weights[0].name
    file.parent.mkdir()
    torch.save(torch.zeros(3), file)
    with pytest.raises(AnnotatorError, match=r"no weights by name.*Tensor"):
        run(REGISTRY.get("hed"), Runtime(weight_folders=(tmp_path,)), picture(64, 64))
