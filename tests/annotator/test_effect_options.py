"""Entries that share an effect say how theirs differs, so that nobody need read their ids."""

from __future__ import annotations

from annotator.sd_controlnet.registry import discover

REGISTRY = discover(effects=None)

OPTIONS = {
    "reference": {"attention": bool, "adain": bool},
    "recolor": {"light": str},
    "inpaint_only": {"from_filling": bool},
    "style_align": {},
    "revision": {"ignores_prompt": bool},
    "tile_colorfix": {},
}


def test_each_entry_with_an_effect_fills_in_every_option_of_it() -> None:
    specs = [entry.spec for entry in REGISTRY.entries] + [item.spec for item in REGISTRY.disabled.values() if item.spec]
    acting = [spec for spec in specs if spec.effect]
    assert {spec.effect for spec in acting} == set(OPTIONS)
    for spec in acting:
        assert {name: type(value) for name, value in spec.effect_options.items()} == OPTIONS[spec.effect], spec.id


def test_the_options_are_those_that_the_names_promise() -> None:
    said = {
        id_: dict(REGISTRY.get(id_).spec.effect_options)
        for id_ in ("reference_only", "reference_adain", "reference_adain+attn", "inpaint_only", "recolor_luminance")
    }
    assert said == {
        "reference_only": {"attention": True, "adain": False},
        "reference_adain": {"attention": False, "adain": True},
        "reference_adain+attn": {"attention": True, "adain": True},
        "inpaint_only": {"from_filling": False},
        "recolor_luminance": {"light": "luminance"},
    }


def test_an_entry_that_another_takes_the_place_of_names_one_that_there_is() -> None:
    """The other takes and gives the same: the unit's sliders and masks go on meaning what they did."""
    replaced = [entry.spec for entry in REGISTRY.entries if entry.spec.within_host_mask]
    assert [spec.id for spec in replaced] == ["inpaint_only"]
    for spec in replaced:
        other = REGISTRY.get(spec.within_host_mask).spec
        assert (other.sliders, other.resolution, other.accepts_mask) == (
            spec.sliders,
            spec.resolution,
            spec.accepts_mask,
        )
