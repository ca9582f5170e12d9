"""The names under which other extensions import sd-webui-controlnet's modules, imported as they import them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lib_controlnet.compat.modules import makers
from lib_controlnet.compat.names import MARK, Names
from lib_controlnet.engine.services import Services
from tests.surface_services import make_services

NAMES = [
    "scripts.external_code",
    "scripts.hook",
    "scripts.cldm",
    "scripts.batch_hijack",
    "scripts.global_state",
    "scripts.enums",
    "scripts.processor",
    "scripts.utils",
    "scripts.supported_preprocessor",
    "scripts.logging",
    "scripts.controlnet",
    "scripts.controlnet_version",
    "scripts.controlnet_ui.controlnet_ui_group",
    "internal_controlnet",
    "internal_controlnet.external_code",
    "internal_controlnet.args",
    "lib_controlnet.external_code",
    "lib_controlnet.global_state",
    "extensions.sd-webui-controlnet.scripts.external_code",
    "extensions.sd-webui-controlnet.scripts.global_state",
    "extensions.sd-webui-controlnet.scripts.controlnet",
    "extensions.sd-webui-controlnet.annotator.util",
    "annotator.util",
    "annotator.uniformer",
]
ROOTS = ("scripts", "extensions", "extensions-builtin", "internal_controlnet", "lib_controlnet", "annotator")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def world(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has imported any of the names; afterwards everything is as before."""
    finders, path = list(sys.meta_path), list(sys.path)
    held = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ROOTS}
    aside = {name: module for name, module in held.items() if not name.startswith(("lib_controlnet.", "annotator."))}
    for name in [*aside, *(name for name in held if getattr(sys.modules[name], MARK, False)), "modules_forge"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, MARK, False)]
    yield
    sys.meta_path[:], sys.path[:] = finders, path
    for name in [name for name in sys.modules if name.partition(".")[0] in ROOTS and name not in held]:
        del sys.modules[name]


def install(services: Services, root: Path, others: Callable[[], Any] = tuple, count: int = 3) -> Names:
    made = makers(services, lambda: count, lambda: SimpleNamespace)
    names = Names(root, lambda name, module: made[name](module), others)
    names.install()
    return names


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_imported(world: None, services: Services, tmp_path: Path, name: str) -> None:
    install(services, tmp_path)
    module = importlib.import_module(name)
    assert sys.modules[name] is module
    assert importlib.import_module(name) is module


@pytest.mark.parametrize("name", [name for name in NAMES if "." in name])
def test_a_name_can_be_looked_for_first(world: None, services: Services, tmp_path: Path, name: str) -> None:
    install(services, tmp_path)
    assert importlib.util.find_spec(name) is not None


def test_every_form_of_the_import(world: None, services: Services, tmp_path: Path) -> None:
    install(services, tmp_path)
    scope: dict[str, Any] = {}
    for line in (
        "import lib_controlnet.external_code",
        "from lib_controlnet import external_code, global_state",
        "from lib_controlnet.external_code import ControlNetUnit, ResizeMode",
        "import scripts.hook as controlnet_hook",
        "from scripts import external_code, hook, cldm, batch_hijack",
        "from scripts.cldm import ControlNet",
        "from scripts.hook import ControlModelType",
        "from scripts.batch_hijack import InputMode, BatchHijack, instance",
        "from scripts.external_code import find_cn_script",
        "from internal_controlnet.external_code import Preprocessor, PreprocessorParameter",
        "from internal_controlnet import external_code as cn_ext",
        "from scripts.supported_preprocessor import Preprocessor",
        "from scripts.utils import resize_image_with_pad, load_state_dict",
        "from scripts.logging import logger",
        "from scripts.processor import *",
        "import scripts.global_state",
    ):
        exec(line, scope)
    assert scope["external_code"] is sys.modules["scripts.external_code"]
    assert callable(scope["canny"])
    assert callable(scope["HWC3"])
    assert scope["instance"].is_batch is False
    assert scope["scripts"].global_state.cn_models["None"] is None
    importlib.reload(scope["hook"])


def test_one_module_under_all_its_names(world: None, services: Services, tmp_path: Path) -> None:
    install(services, tmp_path)
    names = [name for name in NAMES if name.endswith(".external_code")]
    assert len({id(importlib.import_module(name)) for name in names}) == 1
    states = [name for name in NAMES if name.endswith(".global_state")]
    assert len({id(importlib.import_module(name)) for name in states}) == 1


def test_the_entry_is_not_run_twice(world: None, services: Services, tmp_path: Path) -> None:
    """A file of that name exists below the folder; its module is there at once, and answers when it is asked."""
    install(services, tmp_path)
    module = sys.modules["extensions.sd-webui-controlnet.scripts.controlnet"]
    assert module is sys.modules["scripts.controlnet"] is importlib.import_module("scripts.controlnet")
    assert module.Script is SimpleNamespace
    assert "None" in module.cn_models
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


def test_nothing_is_made_before_it_is_imported(world: None, services: Services, tmp_path: Path) -> None:
    install(services, tmp_path)
    assert [name for name in NAMES if name in sys.modules and not name.endswith("scripts.controlnet")] == []


def test_our_own_folders_name(world: None, services: Services, tmp_path: Path) -> None:
    """ADetailer takes the way from the folder where the extension lies."""
    install(services, tmp_path / "extensions" / "sd-webui-controlnet-mine")
    code = importlib.import_module("extensions.sd-webui-controlnet-mine.scripts.external_code", "external_code")
    assert code.get_max_models_num() == 3


def test_installing_again_leads_to_the_new_services(world: None, services: Services, tmp_path: Path) -> None:
    first = install(services, tmp_path)
    kept = importlib.import_module("scripts.external_code")
    first.install()
    assert importlib.import_module("scripts.external_code") is kept, "Reload UI: the same extension"
    install(services, tmp_path, count=7)
    assert importlib.import_module("scripts.external_code").get_max_models_num() == 7
    assert sum(bool(getattr(finder, MARK, False)) for finder in sys.meta_path) == 1


# -- names that others hold ----------------------------------------------------------------------------------------


def other_extension(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / "other" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("whose = 'theirs'\n")
    return folder / "other"


def test_what_is_imported_already_stays(world: None, services: Services, tmp_path: Path, monkeypatch: Any) -> None:
    theirs = ModuleType("theirs")
    for name in ("scripts.external_code", "scripts.controlnet"):
        monkeypatch.setitem(sys.modules, name, theirs)
    install(services, tmp_path)
    for name in ("scripts.external_code", "scripts.controlnet"):
        assert sys.modules[name] is theirs
    assert importlib.import_module("internal_controlnet.external_code") is not theirs


@pytest.mark.parametrize("file", ["scripts/utils.py", "scripts/utils/__init__.py"])
def test_a_file_that_loads_later_goes_first(world: None, services: Services, tmp_path: Path, file: str) -> None:
    other = other_extension(tmp_path, file)
    names = install(services, tmp_path, lambda: [other])
    assert not names.offers("scripts.utils")
    with pytest.raises(ImportError):
        importlib.import_module("scripts.utils")
    assert importlib.import_module("scripts.hook").th is not None
    assert importlib.import_module("extensions.sd-webui-controlnet.scripts.utils").pad64(1) == 63


def test_whoever_is_found_on_the_path_goes_first(world: None, services: Services, tmp_path: Path) -> None:
    other = other_extension(tmp_path, "scripts/enums.py", "lib_controlnet/global_state.py", "annotator/util.py")
    install(services, tmp_path)
    sys.path.insert(0, str(other))
    importlib.invalidate_caches()
    assert importlib.import_module("scripts.enums").whose == "theirs"
    assert importlib.import_module("scripts.hook").th is not None


def test_in_forge_lib_controlnet_is_forges(
    world: None, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modules_forge", ModuleType("modules_forge"))
    names = install(services, tmp_path)
    assert not any(names.offers(name) for name in ("lib_controlnet.external_code", "lib_controlnet.global_state"))
    assert names.offers("scripts.external_code")


def test_other_names_are_none_of_ours(world: None, services: Services, tmp_path: Path) -> None:
    install(services, tmp_path)
    for name in ("scripts.sam", "annotator.clipseg", "lib_controlnet.nothing", "internal_controlnet.nothing"):
        with pytest.raises(ImportError):
            importlib.import_module(name)


# -- what is in them ------------------------------------------------------------------------------------------------


@pytest.fixture
def get(services: Services, tmp_path: Path) -> Callable[[str], Any]:
    made = makers(services, lambda: 3, lambda: SimpleNamespace)
    return Names(tmp_path, lambda name, module: made[name](module), tuple).module


def test_global_state_of_models(get: Any, services: Services, tmp_path: Path) -> None:
    state = get("global_state")
    assert list(state.cn_models) == state.get_all_controlnet_names() == ["None", *services.library.names()]
    kept = state.cn_models
    name = next(name for name in state.cn_models if "own_model" in name)
    assert state.cn_models_names["own_model"] == name
    assert state.cn_models[name] == state.get_controlnet_filename(name) == str(tmp_path / "own_model.safetensors")
    (tmp_path / "new.safetensors").write_bytes((tmp_path / "own_model.safetensors").read_bytes())
    state.update_cn_models()
    assert state.cn_models is kept
    assert any("new" in name for name in kept)
    with pytest.raises(KeyError):
        state.get_controlnet_filename("nothing like it")
    with pytest.raises(AttributeError):
        state.nothing  # noqa: B018


def test_global_state_of_preprocessors(get: Any) -> None:
    """ADetailer in Forge, the preprocessor in the extras tab, VideoVeil."""
    state = get("global_state")
    assert list(state.get_filtered_preprocessors("Canny"))[:2] == ["none", "canny"]
    assert state.ui_preprocessor_keys == state.get_all_preprocessor_names()
    assert state.reverse_preprocessor_aliases["inpaint_global_harmonious"] == "inpaint"
    assert state.get_module_basename("inpaint_global_harmonious") == "inpaint"
    assert state.get_module_basename("nobody's") == "nobody's"
    found = state.get_preprocessor("canny")
    assert (found.label, found.slider_1.label, found.slider_1.value) == ("canny", "Low Threshold", 100)
    assert found.slider_3.gradio_update_kwargs["visible"] is False
    image = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
    old, is_image = state.cn_preprocessor_modules["canny"](image, res=64, thr_a=50, thr_b=60, low_vram=False)
    assert is_image
    assert np.array_equal(old, found(input_image=image, resolution=64, slider_1=50, slider_2=60))
    assert not np.array_equal(old, state.cn_preprocessor_modules["canny"](img=image)[0])
    old[:] = 0  # the caller's own
    assert found(image, 64, 50, 60).any()
    tensors, is_image = state.cn_preprocessor_modules["clip_vision"](image)
    assert not is_image
    assert "mean" in tensors


def test_processor_tables(get: Any) -> None:
    processor = get("processor")
    config = processor.preprocessor_sliders_config
    assert [slider["name"] for slider in config["canny"]] == [
        processor.flag_preprocessor_resolution,
        "Low Threshold",
        "High Threshold",
    ]
    assert config["invert"] == [None]
    assert processor.model_free_preprocessors == processor.no_control_mode_preprocessors == ["reference_only"]
    assert processor.preprocessor_filters["Canny"] == "canny"
    image = np.zeros((8, 8, 3), np.uint8)
    assert processor.canny(image, res=64)[1]
    with pytest.raises(AttributeError):
        processor.nothing  # noqa: B018


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_three_channels(get: Any, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    found = get("annotator_util").HWC3(image)
    assert (found.shape, found.dtype) == ((5, 7, 3), np.uint8)
    if shape[-1] == 4:
        alpha = image[..., 3:] / 255.0
        assert np.abs(found - (image[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    elif len(shape) == 2 or shape[-1] == 1:
        assert np.array_equal(found[..., 1], image.reshape(5, 7))
    else:
        assert np.array_equal(found, image)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_what_is_no_picture_is_said(get: Any, image: Any) -> None:
    with pytest.raises(TypeError, match="a picture is"):
        get("annotator_util").HWC3(image)


@pytest.mark.parametrize("size", [(100, 60), (64, 64), (33, 200)])
def test_padding_and_back(get: Any, size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    padded, back = get("utils").resize_image_with_pad(image, 128)
    height, width = (round(side * 128 / min(size)) for side in size)
    assert padded.shape[0] % 64 == padded.shape[1] % 64 == 0
    assert back(padded).shape == (height, width, 3)
    assert np.array_equal(padded[height - 1, :width], padded[-1, :width])
    tensor = get("utils").npimg2tensor(image)
    assert tensor.shape == (1, 3, *size)
    assert np.abs(get("utils").tensor2npimg(tensor).astype(int) - image).max() <= 1


def test_the_hook_as_others_use_it(get: Any) -> None:
    hook = get("hook")
    a, b = torch.ones(1, 2, 4, 4), torch.zeros(1, 3, 8, 8)
    assert hook.th.cat([a, b], dim=1).shape == (1, 5, 8, 8)
    assert hook.th.float32 is torch.float32
    original = hook.th.cat
    hook.th.cat = lambda tensors, *args, **kwargs: original(tensors, *args, **kwargs)  # FreeU
    assert hook.th.cat([a, a], dim=1).shape == (1, 4, 4, 4)
    context = torch.rand(2, 5, 3)
    assert hook.mark_prompt_context(context, positive=True) is context
    marks, negative, positive, same = hook.unmark_prompt_context(context)
    assert (marks.shape, negative, positive) == ((2, 1, 1, 1), [], [])
    assert same is context
    assert hook.ControlModelType.ControlNet not in [hook.ControlModelType.IPAdapter]


def test_loading_a_state_dict(get: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.arange(3.0)}}, tmp_path / "file.pth")
    assert get("utils").load_state_dict(str(tmp_path / "file.pth"))["a"].tolist() == [0.0, 1.0, 2.0]
