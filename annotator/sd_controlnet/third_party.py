"""Preprocessors of other extensions, made for sd-webui-controlnet, as entries of our registry.

They are objects of a class derived from its `Preprocessor` (lib_controlnet/compat/preprocessor.py offers that class);
only what they have and how they are called matters here, not who they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .spec import AnnotatorError, Detection, PreprocessorSpec, Runtime, Slider, resolution_slider

if TYPE_CHECKING:
    from numpy.typing import NDArray


def specification(peer: Any) -> PreprocessorSpec:
    """What the registry must know of `peer`. Raises ValueError where it has no name, or a slider without a range."""
    name = str(getattr(peer, "name", "") or "")
    size = peer.slider_resolution
    return PreprocessorSpec(
        id=name,
        label=str(getattr(peer, "label", "") or name),
        control_types=tuple(peer.tags),
        rank=int(peer.sorting_priority),
        resolution=resolution_slider(round(size.value)) if size.visible else None,
        sliders=tuple(_slider(peer, number) for number in (1, 2, 3) if getattr(peer, f"slider_{number}").visible),
        accepts_mask=bool(peer.accepts_mask or peer.requires_mask),
        requires_mask=bool(peer.requires_mask),
        model_free=bool(peer.do_not_need_model),
        returns_image=bool(peer.returns_image),
        hides_control_mode=not peer.show_control_mode,
        soft_weights_in_hires=bool(peer.use_soft_projection_in_hr_fix),
    )


def detector(peer: Any) -> Callable[[Runtime], Callable[..., Detection]]:
    """`load` of an entry: calls `peer` as sd-webui-controlnet calls it."""
    shown = [number for number in (1, 2, 3) if getattr(peer, f"slider_{number}").visible]

    def detect(
        image: NDArray[Any],
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: NDArray[Any] | None = None,
        rng_seed: int = 0,
    ) -> Detection:
        import numpy as np

        values: dict[str, Any] = dict.fromkeys(f"slider_{number}" for number in (1, 2, 3))
        values.update({f"slider_{number}": value for number, value in zip(shown, params, strict=False)})
        poses: list[Any] = []
        np.random.seed(rng_seed % (1 << 32))  # what such preprocessors draw from
        seen = image if mask is None else np.dstack([image[:, :, :3], mask])
        result = peer(seen, resolution, **values, input_mask=mask, low_vram=False, json_pose_callback=poses.append)
        return _detection(peer, getattr(result, "value", result), poses[-1] if poses else None)

    return lambda _runtime: detect


def _slider(peer: Any, number: int) -> Slider:
    given = getattr(peer, f"slider_{number}")
    return Slider(given.label, given.minimum, given.maximum, given.step, given.value)


def _detection(peer: Any, value: Any, pose: Any) -> Detection:
    import numpy as np

    if not peer.returns_image:
        return Detection(tensors=value if isinstance(value, dict) else {"value": value}, pose=pose)
    found = np.asarray(value)
    if found.dtype != np.uint8 or found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[2] not in (1, 3, 4)):
        raise AnnotatorError(
            f'the preprocessor "{peer.name}" of another extension did not return a picture',
            found=f"{type(value).__name__}, shape {found.shape}, type {found.dtype}",
        )
    if found.ndim == 2 or found.shape[2] == 1:
        found = np.repeat(found.reshape(*found.shape[:2], 1), 3, axis=2)
    return Detection(np.array(found, order="C"), pose=pose)
