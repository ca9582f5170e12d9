"""Every network on a pretended graphics card: where its tensors are, in which types, and what is left there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.registry import Entry, Registry, discover
from annotator.sd_controlnet.spec import Detection, Runtime
from annotator.sd_controlnet.store import NetworkStore
from tests.device.pretend import Card, pretended

from .makers import can_make, random_runtime

REGISTRY: Registry = discover(None)
WITH_WEIGHTS = [entry for entry in REGISTRY.entries if entry.spec.weights]
SMALL = {
    "annotator.sd_controlnet.entries.sam.detector.POINTS_PER_SIDE": 2,
    "annotator.sd_controlnet.entries.marigold.detector.STEPS": 3,
    "annotator.sd_controlnet.entries.depth_anything.detector._SIDE": 5 * 14,
    "annotator.sd_controlnet.entries.zoe.detector._HEIGHT": 96,
    "annotator.sd_controlnet.entries.zoe.detector._WIDTH": 96,
    "annotator.sd_controlnet.entries.segmentation.detector.SHORT_SIDE": 128,
    "annotator.sd_controlnet.entries.oneformer.detector.SIDES": {
        "oneformer_ade20k": (96, 160),
        "oneformer_coco": (96, 160),
    },
}
"""At what a network looks, for the sake of time."""
HEAVY = ("openpose_full", "normal_bae", "lineart_anime", "lineart_anime_denoise")
"""Of real size in their files: in float32 they are tried on the card that refuses more alone."""


def networks() -> list[Entry]:
    """One entry for each set of files that no other entry's holds; one that computes in half precision, if any does."""
    chosen: list[Entry] = []
    for entry in sorted(WITH_WEIGHTS, key=lambda entry: (-len(entry.spec.weights), not entry.spec.half)):
        if not any(set(entry.spec.weights) <= set(other.spec.weights) for other in chosen):
            chosen.append(entry)
    return [entry for entry in chosen if can_make(entry.spec)]


def places() -> Iterator[tuple[Entry, str, str]]:
    """Networks with the kinds of card and the types; of further files for one folder's network, one of them."""
    folders: set[str] = set()
    for entry in networks():
        loader, half = entry.load.args[1], entry.spec.half
        folder = getattr(loader, "func", loader).__module__
        if folder in folders:
            yield entry, "cuda", half[0] if half else "float32"
            continue
        folders.add(folder)
        yield entry, "mps", "float32"
        yield from ((entry, "cuda", dtype) for dtype in (*["float32"] * (entry.spec.id not in HEAVY), *half))


CASES = [pytest.param(*case, id="-".join((case[0].spec.id, *case[1:]))) for case in places()]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(name, value)


@pytest.fixture(scope="module")
def store() -> NetworkStore:
    """One for all: what one case leaves on its card, the next would meet."""
    return NetworkStore(limit=1 << 30)


@pytest.fixture(scope="module")
def plain() -> dict[str, Detection]:
    """What the processor finds, by entry."""
    return {}


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0).astype(np.float32)
    return ((soft - soft.min()) / np.ptp(soft) * 255).astype(np.uint8)


def run(entry: Entry, runtime: Runtime) -> Detection:
    image, mask = picture(), None
    if entry.spec.requires_mask:
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[20:40, 30:60] = 255
    found = entry.load(runtime)(image, resolution=64, params=entry.spec.resolve_params(), mask=mask)
    return found if isinstance(found, Detection) else Detection(found)


def furthest(found: Detection, expected: Detection) -> float:
    """The largest difference, in 255ths of the range; of embeddings, of their own range."""
    if expected.map is not None:
        assert found.map is not None
        return float(np.abs(found.map.astype(int) - expected.map).max())
    assert found.tensors is not None
    assert expected.tensors is not None
    pairs = [(found.tensors[name], value) for name, value in expected.tensors.items()]
    return max(float((one - other).abs().max() / other.abs().max()) * 255 for one, other in pairs)


@pytest.mark.parametrize(("entry", "kind", "dtype"), CASES)
def test_a_network_works_on_the_card_and_leaves_it(
    entry: Entry, kind: str, dtype: str, folder: Path, store: NetworkStore, plain: dict[str, Detection]
) -> None:
    """Mixed devices or types, float64 and undivided pools on MPS are errors of the card.

    The numbers are the processor's to the bit, but for MPS, where some operators are replaced, and half precision.
    """
    runtime = replace(random_runtime(entry.spec, folder), networks=store)
    if entry.spec.id not in plain:
        plain[entry.spec.id] = run(entry, runtime)
    with pretended(kind) as card:
        found = run(entry, replace(runtime, device=kind, dtype=dtype))
        assert bool(card.memory.peak) != is_onnx(entry)
        store.put_away()
        gc.collect()
        assert not card.memory.live, left(card)
    exact = kind == "cuda" and dtype == "float32"
    assert furthest(found, plain[entry.spec.id]) <= (0 if exact else 1)


def is_onnx(entry: Entry) -> bool:
    """Whether onnxruntime runs all of it, which knows nothing of pretended cards."""
    return all(weight.name.endswith(".onnx") for weight in entry.spec.weights)


def left(card: Card) -> str:
    """What is still on the card, for the message."""
    from tests.device.card import OnCard

    here = [one for one in gc.get_objects() if isinstance(one, OnCard) and one.card is card]
    return "; ".join(f"{tuple(one.shape)} {one.dtype}" for one in here[:10])


@pytest.mark.parametrize("entry", WITH_WEIGHTS, ids=lambda entry: entry.spec.id)
def test_the_type_of_every_network_is_decided(entry: Entry) -> None:
    assert bool(entry.spec.half) != bool(entry.spec.full_because), "either types of 16 bits, or why not"
    assert set(entry.spec.half) <= {"float16", "bfloat16"}
    for dtype in ("float32", "float16", "bfloat16"):
        wanted = dtype if dtype in entry.spec.half else "float32"
        assert Runtime(device="cuda", dtype=dtype).computing(entry.spec).dtype == wanted


def test_a_clip_network_on_the_processor_is_never_in_half_precision() -> None:
    lent = Runtime(device="cuda", dtype="float16", clip_device="cpu").for_clip()
    assert (lent.device, lent.dtype) == ("cpu", "float32")
    assert Runtime(device="cuda", dtype="float16").for_clip() == Runtime(device="cuda", dtype="float16")


def test_numbers_out_of_range_are_computed_again_in_float32(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network whose weights are large is not the map of nan that float16 would make of it."""
    entry = REGISTRY.get("lineart")
    runtime = random_runtime(entry.spec, folder)
    network = type("", (torch.nn.Module,), {"forward": lambda _self, x: 1e-5 * (x.mean(dim=1, keepdim=True) * 3e5 / 2)})
    monkeypatch.setattr("annotator.sd_controlnet.entries.lineart.detector._network", network)
    monkeypatch.setattr("annotator.sd_controlnet.networks.fill", lambda module, *_: module)
    expected = run(entry, runtime).map
    assert expected is not None
    assert len(np.unique(expected)) > 9
    assert np.array_equal(run(entry, replace(runtime, dtype="float16")).map, expected)
    assert "float32" in caplog.text
