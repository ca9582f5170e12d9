"""`--list`: every preprocessor, what it is set by, and whether it can run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotator.sd_controlnet.registry import Registry
from annotator.sd_controlnet.spec import PreprocessorSpec, Slider
from annotator.sd_controlnet.unavailable import UNAVAILABLE
from annotator.sd_controlnet.weights import existing_file

from .options import parameter_name


def listing(registry: Registry, folders: tuple[Path, ...]) -> dict[str, Any]:
    """As JSON. `available` is about Python packages and this version; a weight file's `present` about `folders`."""
    offered = [{**_described(entry.spec, folders), "available": True, "reason": ""} for entry in registry.entries]
    known = {item.id: item for item in UNAVAILABLE}
    disabled = [
        {
            **(_described(item.spec, folders) if item.spec else _named(item.id, known[item.id].names)),
            "available": False,
            "reason": item.reason,
        }
        for item in sorted(registry.disabled.values(), key=lambda item: item.id)
        if item.spec or item.id in known
    ]
    return {"preprocessors": [*offered, *disabled]}


def table(found: dict[str, Any]) -> str:
    """The same for a terminal."""
    lines: list[str] = []
    for row in found["preprocessors"]:
        missing = [weight["name"] for weight in row.get("weights", ()) if not weight["present"]]
        note = f"weights missing: {', '.join(missing)}" if missing else ""
        lines.append(f"{row['id']:32} {note if row['available'] else 'not available: ' + row['reason']}".rstrip())
    return "\n".join(lines)


def _described(spec: PreprocessorSpec, folders: tuple[Path, ...]) -> dict[str, Any]:
    sliders = [spec.resolution] if spec.resolution else []
    return {
        **_named(spec.id, spec.aliases, spec.label),
        "control_types": list(spec.control_types),
        "returns_image": spec.returns_image,
        "accepts_mask": spec.accepts_mask,
        "requires_mask": spec.requires_mask,
        "params": [_slider(slider) for slider in (*sliders, *spec.sliders)],
        "half": list(spec.half),
        "full_because": spec.full_because,
        "weights": [
            {
                "name": weight.name,
                "folder": weight.folder,
                "size": weight.size,
                "licence": weight.licence,
                "source": weight.source,
                "present": existing_file(weight, folders) is not None,
            }
            for weight in spec.weights
        ],
    }


def _named(id_: str, names: tuple[str, ...], label: str = "") -> dict[str, Any]:
    aliases = [name for name in names if name.lower() not in (id_.lower(), label.lower())]
    return {"id": id_, "label": label or id_, "aliases": aliases}


def _slider(slider: Slider) -> dict[str, Any]:
    return {
        "name": parameter_name(slider),
        "label": slider.label,
        "min": slider.minimum,
        "max": slider.maximum,
        "step": slider.step,
        "default": slider.default,
        "unit": slider.unit,
    }
