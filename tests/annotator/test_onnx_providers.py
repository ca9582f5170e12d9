"""Which providers onnxruntime is asked for, and what happens where one fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from annotator.sd_controlnet import onnx_networks
from annotator.sd_controlnet.entries.faces import ANTELOPE, load
from annotator.sd_controlnet.onnx_networks import load_onnx
from annotator.sd_controlnet.onnx_providers import providers
from annotator.sd_controlnet.spec import AnnotatorError, Runtime, WeightFile
from annotator.sd_controlnet.store import NetworkStore

CPU = "CPUExecutionProvider"
NAMES = {
    "cuda": "CUDAExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "other": "AzureExecutionProvider",
}
WEIGHT = WeightFile(name="net.onnx", folder="nets", size=1, licence="")


class Library(ModuleType):
    """In the place of onnxruntime: has `offers`, cannot open with `broken`, silently leaves out `absent`."""

    def __init__(self, offers: str = "", broken: str = "", absent: str = "", failing: str = "") -> None:
        super().__init__("onnxruntime")
        self.offers, self.broken, self.absent, self.failing = (
            [NAMES.get(name, name) for name in names.split()] for names in (offers, broken, absent, failing)
        )
        self.asked: list[list[Any]] = []
        library = self

        class InferenceSession:
            def __init__(self, _path: str, providers: list[tuple[str, dict[str, str]]]) -> None:
                library.asked.append(providers)
                names = [name for name, _ in providers]
                if names[0] in library.broken:
                    raise RuntimeError(f"{names[0]} cannot be loaded")
                self.names = [name for name in names if name not in library.absent]

            def get_providers(self) -> list[str]:
                return self.names

            def get_inputs(self) -> list[Any]:
                return [type("", (), {"name": "x"})]

            def run(self, _outputs: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
                if self.names[0] in library.failing:
                    raise RuntimeError(f"{self.names[0]}: out of memory")
                return [given["x"] + 1]

        self.InferenceSession = InferenceSession

    def get_available_providers(self) -> list[str]:
        return [*self.offers, CPU]


Install = Callable[..., Library]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def installed(**settings: str) -> Library:
        library = Library(**settings)
        monkeypatch.setitem(sys.modules, "onnxruntime", library)
        return library

    return installed


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Runtime]:
    (tmp_path / "net.onnx").write_bytes(b"....")
    monkeypatch.setattr(onnx_networks, "refuse_external_data", lambda _path: None)
    store = NetworkStore()
    return lambda device: Runtime(device=device, weight_folders=(tmp_path,), networks=store)


@pytest.mark.parametrize(
    ("device", "offers", "wanted"),
    [
        ("cpu", "cuda directml coreml", []),
        ("cuda", "cuda", [("cuda", "0")]),
        ("cuda:1", "other cuda", [("cuda", "1")]),
        ("cuda:2", "rocm migraphx", [("migraphx", "2"), ("rocm", "2")]),
        ("cuda:1", "directml", [("directml", None)]),
        ("privateuseone:1", "directml", [("directml", "1")]),
        ("mps", "coreml", [("coreml", None)]),
        ("mps", "cuda", []),
        ("xpu", "cuda", []),
    ],
)
def test_the_hosts_card_is_asked_for_and_the_processor_last(
    install: Install, device: str, offers: str, wanted: list[tuple[str, str | None]]
) -> None:
    install(offers=offers)
    found = providers(device)
    assert [(name, options.get("device_id")) for name, options in found] == [
        *((NAMES[name], number) for name, number in wanted),
        (CPU, None),
    ]


@pytest.mark.parametrize("fault", ["broken", "absent", "failing"])
def test_a_provider_that_fails_gives_way_to_the_next(
    install: Install, runtime: Callable[[str], Runtime], caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """It cannot be opened, onnxruntime leaves it out, or it fails on a picture: the map comes, and the log says so."""
    install(offers="migraphx rocm", **{fault: "migraphx rocm"})
    session = load_onnx(runtime("cuda:1"), WEIGHT)
    assert session(np.zeros((1, 3, 2, 2), np.float32))[0].min() == 1
    assert session.device == "cpu"
    assert NAMES["migraphx"] in caplog.text
    assert "net.onnx" in caplog.text


def test_a_working_card_is_not_talked_about(
    install: Install, runtime: Callable[[str], Runtime], caplog: pytest.LogCaptureFixture
) -> None:
    library = install(offers="cuda")
    session = load_onnx(runtime("cuda:1"), WEIGHT)
    assert session.device == "cuda:1"
    assert not caplog.text
    assert len(library.asked) == 1


@pytest.mark.parametrize(("fault", "match"), [("broken", "damaged"), ("failing", r"net\.onnx failed.*2x4|2x4")])
def test_what_fails_on_the_processor_too_is_the_files_fault(
    install: Install, runtime: Callable[[str], Runtime], fault: str, match: str
) -> None:
    install(offers="cuda", **{fault: f"cuda {CPU}"})
    with pytest.raises(AnnotatorError, match=match):
        load_onnx(runtime("cuda"), WEIGHT)(np.zeros((1, 3, 4, 2), np.float32))


def test_sessions_leave_the_card_and_stay_on_the_processor(install: Install, runtime: Callable[[str], Runtime]) -> None:
    library = install(offers="cuda")
    for device, opened in (("cuda", 2), ("cpu", 1)):
        lent = runtime(device)
        lent.networks.clear()
        library.asked.clear()
        for _ in range(2):
            lent.network("net", lambda lent=lent: load_onnx(lent, WEIGHT))
            lent.networks.put_away()
        assert len(library.asked) == opened
    lent = runtime("cuda")
    assert lent.network("net", lambda: load_onnx(lent, WEIGHT)).device == "cuda", "not the processor's, asked for here"


def test_insightface_gets_the_same_providers(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = install(offers="cuda", broken="cuda")
    prepared: list[int] = []

    def get_model(path: str, providers: list[Any]) -> Any:
        session = library.InferenceSession(path, providers)
        return type("", (), {"session": session, "prepare": lambda _self, ctx, **_: prepared.append(ctx)})()

    package = ModuleType("insightface")
    package.model_zoo = type("", (), {"get_model": staticmethod(get_model)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setattr("annotator.sd_controlnet.entries.faces.detector.refuse_external_data", lambda _path: None)
    for weight in ANTELOPE:
        (tmp_path / weight.name).write_bytes(b"....")
    detector: Any = load(Runtime(device="cuda:1", weight_folders=(tmp_path,)), "instant_id_face_embedding")
    assert detector.finder().device == "cpu"
    assert prepared == [-1]
    assert ("CUDAExecutionProvider", "1") in [(asked[0][0], asked[0][1].get("device_id")) for asked in library.asked]
    library.broken.clear()
    detector._runtime.networks.clear()
    assert detector.finder().device == "cuda:1"
    assert prepared == [-1, 0]
