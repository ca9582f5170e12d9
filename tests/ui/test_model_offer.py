"""Control models that are offered for a type and a checkpoint, and brought from a hub on the loopback."""

from __future__ import annotations

import json
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from annotator.sd_controlnet import weights as annotator_weights
from lib_controlnet.core import model_catalogue
from lib_controlnet.core.control_types import MODEL_WORDS, models_of
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.core.model_catalogue import MODELS, OfferedModel, recommended
from lib_controlnet.engine.services import PageServices
from lib_controlnet.engine.weights import WeightFiles
from lib_controlnet.ui import folders, model_offer, models_table
from tests.annotator import test_weights as hub_files
from tests.annotator.test_weights import CONTENT, SHA, Hub

HEADER = json.dumps({}).encode()
FILE = struct.pack("<Q", len(HEADER)) + HEADER


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def offering(services: PageServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageServices:
    """A checkpoint of SD 1.x, the model folder of `services`, and one model for Shuffle that the hub has."""
    repo, _, path = hub_files.FILE.strip("/").partition("/resolve/main/")
    model = OfferedModel(
        name="hub_depth.safetensors",
        control_types=("Shuffle",),
        base="SD 1.x",
        size=len(CONTENT),
        licence="MIT",
        repo=repo,
        path=path,
        sha256=SHA,
    )
    monkeypatch.setattr(model_catalogue, "MODELS", (model,))
    base: Any = SimpleNamespace(kind="SD 1.x", title="a checkpoint")
    files = WeightFiles(annotator_weights, lambda: [tmp_path])  # type: ignore[arg-type]
    return replace(services, model_files=files, base_model=lambda: base)


def test_what_is_offered_is_whole() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert model.source.startswith("https://huggingface.co/")
        assert "/resolve/main/" in model.source
        assert model.size > 10**7
        assert re.fullmatch("([0-9a-f]{64})?", model.sha256)
        for kind in model.control_types:
            assert kind in MODEL_WORDS
            assert model.name in models_of(kind, [model.name]), "it is then listed for its type"
    found = recommended("Canny", "SD 1.x")
    assert found is not None
    assert (found.name, found.licence) == ("control_v11p_sd15_canny_fp16.safetensors", "OpenRAIL")
    assert recommended("Canny", "SDXL") is not recommended("Canny", "SD 1.x")
    assert recommended("Canny", "SD 2.x") is not None
    assert recommended("Shuffle", "SDXL") is None


def test_it_is_brought_stopped_and_resumed(hub: Hub, offering: PageServices, tmp_path: Path) -> None:
    assert "hub_depth.safetensors" in model_offer.offer_update(offering, "Shuffle")["value"]
    assert hub.requests == [], "nothing was asked before the click"
    hub.stop_after, hub.hold = len(CONTENT) // 2, threading.Event()

    def stop(part: float, **_: Any) -> None:
        if part >= 0.4 and offering.model_files is not None:
            offering.model_files.cancel()

    with pytest.raises(ControlNetError, match="was stopped"):
        model_offer.bring(offering, "Shuffle", stop)
    hub.hold.set()
    hub.hold = None
    assert not (tmp_path / "hub_depth.safetensors").exists()
    model_offer.fetch(offering, model_catalogue.MODELS[0], lambda _part, **_: None)
    assert (tmp_path / "hub_depth.safetensors").read_bytes() == CONTENT
    assert int(hub.requests[-1].rpartition(" ")[2]) > 0, "it went on where it was"
    assert models_table.offers(offering) == []


def test_tables_are_narrowed(offering: PageServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """By words, kind, type and what fits; what a type lacks is said with what brings it."""
    monkeypatch.setattr(model_catalogue, "MODELS", MODELS)

    def names(**chosen: Any) -> list[str]:
        return [model.name for model in models_table.offers(offering, models_table.Wanted(**chosen))]

    assert len(names()) == len(MODELS)
    fitting = names(fitting=True)
    assert fitting == [model.name for model in MODELS if model.base == "SD 1.x"]
    assert names()[: len(fitting)] == fitting, "what fits comes first"
    assert names(contains="apache tile") == ["controlnet-union-sdxl-promax.safetensors"]
    assert names(kind="T2I-Adapter", control_type="Depth") == ["t2i-adapter-depth-midas-sdxl-1.0.fp16.safetensors"]
    assert names(contains="no such thing") == []
    assert "(0)" in models_table.offer_table(offering, models_table.Wanted("no such thing"))
    said = models_table.lacking(offering, "Shuffle")
    assert "recommended: control_v11e_sd15_shuffle_fp16.safetensors (722.6 MB, OpenRAIL)" in said
    lacking: Any = SimpleNamespace(missing=lambda spec: spec.weights or [MODELS[0]], path=lambda _file: None)
    assert "has what it needs" in models_table.lacking(offering, "Canny")
    assert "lacks control_v11p_sd15_canny" in models_table.lacking(replace(offering, weights=lacking), "Canny")
    assert "this list knows none" in models_table.lacking(offering, "SparseCtrl")
    assert models_table.lacking(offering, "All") == ""


@pytest.mark.parametrize(
    ("chosen", "client", "said"),
    [
        ("elsewhere", "127.0.0.1", "Choose one of the folders"),
        ("", "127.0.0.1", "Choose one of the folders"),
        ("gone", "127.0.0.1", "There is no folder"),
        ("here", "192.168.1.7", "which is not yours"),
        ("here", "127.0.0.1", "which would open it, is not installed"),
    ],
)
def test_only_known_folders_open_and_only_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, client: str, said: str
) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "here").mkdir()
    known = [tmp_path / "here", tmp_path / "gone"]
    assert said in folders.open_folder(str(tmp_path / chosen) if chosen else "", known, client)
