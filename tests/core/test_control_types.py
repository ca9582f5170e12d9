"""Control types: the filters and defaults of the peers' table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lib_controlnet.core.control_types import (
    default_model,
    default_preprocessor,
    models_of,
    preprocessors_of,
    type_names,
    usable_types,
)


@dataclass(frozen=True)
class Spec:
    id: str
    control_types: tuple[str, ...] = ()


SPECS = [
    Spec("canny", ("Canny",)),
    Spec("invert", ("Canny", "Scribble")),
    Spec("none"),
    Spec("a_third_party", ("Canny", "Own Type")),
    Spec("threshold"),
]
MODELS = [
    "control_canny-fp16 [e3fe7712]",
    "control_v11p_sd15_canny [d14c016b]",
    "controlnet-union-sdxl [11112222]",
    "my_edges [00001111]",
]


def ids(specs: list[Spec]) -> list[str]:
    return [spec.id for spec in specs]


def test_order_of_the_types_is_the_peers() -> None:
    names = type_names()
    assert names[:4] == ["All", "Canny", "Depth", "IP-Adapter"]
    assert names[1:] == sorted(names[1:])
    assert "Own Type" in type_names(SPECS)


def test_none_first_then_the_given_order() -> None:
    assert ids(preprocessors_of("Canny", SPECS)) == ["none", "canny", "invert", "a_third_party"]
    assert ids(preprocessors_of("All", SPECS)) == ["none", "canny", "invert", "a_third_party", "threshold"]


@pytest.mark.parametrize(("control_type", "expected"), [("Canny", "canny"), ("All", "none"), ("Shuffle", "none")])
def test_default_preprocessor(control_type: str, expected: str) -> None:
    found = default_preprocessor(control_type, SPECS)
    assert found is not None
    assert found.id == expected


def test_models_by_words_and_union() -> None:
    assert models_of("Canny", MODELS) == ["None", *MODELS[:3]]
    assert models_of("Shuffle", MODELS) == ["None"]
    assert models_of("All", MODELS) == ["None", *MODELS]
    faces = ["ip-adapter-faceid_sdxl", "pulid_v1.1", "ip-adapter_pulid_sdxl_fp16", "control_instant_id_sdxl"]
    assert models_of("IP-Adapter", faces) == ["None", *faces[:3]]
    assert models_of("Instant-ID", faces) == ["None", faces[3]]


def test_default_model_prefers_version_11_and_ignores_the_hash() -> None:
    assert default_model("Canny", MODELS) == MODELS[1]
    assert default_model("Depth", MODELS) == MODELS[2]
    assert default_model("Canny", [MODELS[0], MODELS[2]]) == MODELS[0]
    assert default_model("Shuffle", MODELS) == "None"
    assert default_model("All", MODELS) == "None"


def test_types_without_anything_are_not_usable() -> None:
    assert usable_types(SPECS, []) == ["All", "Canny", "Own Type", "Scribble"]
    assert "Depth" in usable_types(SPECS, MODELS)


def test_families_that_the_peers_lack_are_found_under_the_types_of_their_preprocessors() -> None:
    names = ["coadapter-style-sd15v1", "random_mask_brushnet_ckpt"]
    assert models_of("T2I-Adapter", names) == ["None", names[0]]
    assert models_of("Inpaint", names) == ["None", names[1]]
