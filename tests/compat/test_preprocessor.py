"""A preprocessor written for sd-webui-controlnet by somebody else, used through our engine."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lib_controlnet.compat.modules import makers
from lib_controlnet.core.errors import PreprocessorError
from lib_controlnet.engine.services import Services
from tests.surface_services import make_services

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def module(services: Services) -> ModuleType:
    module = ModuleType("external_code")
    makers(services, lambda: 3, lambda: None)["external_code"](module)
    return module


def make(module: ModuleType, name: str = "theirs", **attributes: Any) -> Any:
    """As such extensions are written: a class that sets its attributes in `__init__`."""

    class Theirs(module.Preprocessor):
        def __init__(self) -> None:
            super().__init__(name=name)
            self.tags = ["Canny"]
            self.slider_1 = module.PreprocessorParameter(label="Gain", minimum=1, maximum=4, step=1, value=2)
            self.sorting_priority = 50
            self.seen: dict[str, Any] = {}
            for key, value in attributes.items():
                setattr(self, key, value)

        def __call__(self, input_image, resolution, slider_1=None, slider_2=None, slider_3=None, **kwargs):
            self.seen = {"resolution": resolution, "slider_2": slider_2, "shape": input_image.shape, **kwargs}
            kwargs["json_pose_callback"]({"people": []})
            return attributes.get("answer", lambda image: image // int(slider_1))(input_image)

    return Theirs()


def test_it_is_offered_and_called_as_the_peer_calls_it(module: ModuleType, services: Services) -> None:
    theirs = make(module)
    module.Preprocessor.add_supported_preprocessor(theirs)
    spec: Any = services.annotators.get("theirs").spec
    assert (spec.label, spec.control_types, spec.rank) == ("theirs", ("Canny",), 50)
    assert [slider.label for slider in spec.sliders] == ["Gain"]
    result = services.preprocess.run("theirs", IMAGE, threshold_a=4, resolution=256)
    assert np.array_equal(result.map, IMAGE // 4)
    assert result.found.pose == {"people": []}
    assert theirs.seen["resolution"] == 256
    assert theirs.seen["slider_2"] is None
    assert np.array_equal(services.preprocess.run("theirs", IMAGE).map, IMAGE // 2), "the slider's default"
    assert "theirs" in module.get_modules()


def test_a_result_and_an_embedding(module: ModuleType, services: Services) -> None:
    module.Preprocessor.add_supported_preprocessor(
        make(module, "wrapped", answer=lambda image: module.Preprocessor.Result(255 - image, [image]))
    )
    assert np.array_equal(services.preprocess.run("wrapped", IMAGE).map, 255 - IMAGE)
    module.Preprocessor.add_supported_preprocessor(
        make(module, "embeds", returns_image=False, answer=lambda image: np.ones(5, np.float32))
    )
    found = services.preprocess.run("embeds", IMAGE).found
    assert found.map is None
    assert found.tensors is not None
    assert found.tensors["value"].tolist() == [1.0] * 5


def test_a_mask_comes_as_a_fourth_channel(module: ModuleType, services: Services) -> None:
    theirs = make(module, accepts_mask=True, requires_mask=True, answer=lambda image: image)
    module.Preprocessor.add_supported_preprocessor(theirs)
    mask = np.full((8, 12), 200, np.uint8)
    result = services.preprocess.run("theirs", IMAGE, mask)
    assert theirs.seen["shape"] == (8, 12, 4)
    assert np.array_equal(result.map[:, :, 3], mask)
    assert np.array_equal(theirs.seen["input_mask"], mask)


def test_what_is_no_picture_is_refused(module: ModuleType, services: Services) -> None:
    module.Preprocessor.add_supported_preprocessor(make(module, answer=lambda image: image.astype(np.float32)))
    with pytest.raises(PreprocessorError, match="did not return a picture"):
        services.preprocess.run("theirs", IMAGE)


def test_a_taken_name_is_an_error_and_can_be_asked_for(module: ModuleType) -> None:
    assert module.Preprocessor.get_preprocessor("theirs") is None
    module.Preprocessor.add_supported_preprocessor(make(module))
    assert module.Preprocessor.get_preprocessor("theirs").id == "theirs"
    with pytest.raises(ValueError, match='has the name "theirs"'):
        module.Preprocessor.add_supported_preprocessor(make(module))
    with pytest.raises(ValueError, match='has the name "canny"'):
        module.Preprocessor.add_supported_preprocessor(make(module, "canny"))


def test_unloading_moves_the_model(module: ModuleType) -> None:
    moved: list[str] = []
    theirs = make(module)
    assert not theirs.unload()
    theirs.model = type("Model", (), {"to": lambda self, device: moved.append(device)})()
    assert theirs.unload()
    assert moved == ["cpu"]
