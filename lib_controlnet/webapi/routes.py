"""The HTTP routes of sd-webui-controlnet, version 3."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Response
from PIL import Image

from ..core import catalogue
from ..core.errors import ControlNetError
from ..core.hints import inpaint_display
from ..core.units import configured_units, parse_unit
from ..core.unknown import unknown_key
from ..engine import defaults
from ..engine.generation import Picture as Source
from ..engine.look import see
from ..engine.preprocess import Found, PreprocessResult
from ..engine.services import PageServices
from . import bounds, models
from .logins import login_check
from .measuring import error_map_route, measure_route
from .router import UNPROCESSABLE, new_router
from .threads import Threads

API_VERSION = 3
_QUICK, _WAITING = 8, 64
"""Threads for what is answered at once, and for what waits in the host's queue."""
_DETECT_KEYS = tuple(models.ControlNetDetect.__annotations__)


def mount(
    app: FastAPI,
    services: PageServices,
    auth: Sequence[tuple[str, str]] | None,
    lock: AbstractContextManager[Any],
) -> None:
    """Adds `/controlnet/*` to the host's server.

    `auth` are the accounts that may use them, None for everybody. `lock` is the host's queue: a preprocessor and a
    generation do not run at the same time. Handlers run in threads of ours, so that jobs that wait do not stop them.
    """
    api = _Routes(services, lock)
    router = new_router([Depends(login_check(auth))] if auth is not None else [])
    quick, waiting = Threads(_QUICK), Threads(_WAITING)
    for path, handler, answer, methods in (
        ("version", api.version, models.ControlNetVersion, ["GET"]),
        ("model_list", api.model_list, models.ControlNetModelList, ["GET"]),
        ("module_list", api.module_list, models.ControlNetModuleList, ["GET"]),
        ("control_types", api.control_types, models.ControlNetTypes, ["GET"]),
        ("settings", api.settings, models.ControlNetSettings, ["GET"]),
        ("detect", api.detect, models.ControlNetDetected, ["POST"]),
        ("measure", measure_route(services, lock), models.ControlNetMeasured, ["POST"]),
        ("render_openpose_json", api.render_poses, models.ControlNetRendered, ["POST"]),
    ):
        router.add_api_route(
            f"/controlnet/{path}",
            (quick if methods == ["GET"] else waiting).handler(handler),
            response_model=answer,
            methods=methods,
            response_model_exclude_none=path != "measure",  # null says that a metric was not taken,
        )
    router.add_api_route(
        "/controlnet/error_map/{number}",
        quick.handler(error_map_route(services)),
        methods=["GET"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    app.include_router(router)


class _Routes:
    def __init__(self, services: PageServices, lock: AbstractContextManager[Any]) -> None:
        self._services = services
        self._lock = lock

    def version(self) -> Any:
        """The number of this interface."""
        return {"version": API_VERSION}

    def model_list(self, update: bool = True) -> Any:
        """The control models; the folders are read again unless `update` is false."""
        if update:
            self._services.library.refresh()
        return {"model_list": self._services.library.names()}

    def module_list(self, alias_names: bool = False) -> Any:
        """The preprocessors, by id or with `alias_names` by the labels of the page."""
        return {
            "module_list": catalogue.module_names(self._specs(), alias_names),
            "module_detail": catalogue.module_details(self._specs(), alias_names),
        }

    def control_types(self) -> Any:
        """The control types with their preprocessors, models and defaults."""
        services = self._services
        found = catalogue.control_types(
            self._specs(),
            services.library.names(),
            defaults.absent(services),
            lambda name: defaults.fits(services, name),
        )
        return {"control_types": found}

    def settings(self) -> Any:
        """What a client must know of this server."""
        return {"control_net_unit_count": configured_units(self._services.setting)}

    def detect(self, body: models.ControlNetDetect) -> Any:
        """Runs a preprocessor over pictures and returns their maps."""
        images = body.controlnet_input_images or body.controlnet_images
        notes = [unknown_key(key, _DETECT_KEYS) for key in body.unknown()]
        try:
            spec: Any = self._services.preprocess.entry(body.controlnet_module).spec
        except ControlNetError as error:
            raise HTTPException(UNPROCESSABLE, f"Module not available. {error}") from error
        if not images:
            raise HTTPException(UNPROCESSABLE, "No image selected")
        if len(body.controlnet_masks) not in ((len(images),) if spec.requires_mask else (0, len(images))):
            sizes = f"{len(images)} images and {len(body.controlnet_masks)} masks"
            raise HTTPException(UNPROCESSABLE, f"There must be one mask for each image. Found: {sizes}")
        bounds.check_count("images", len(images), bounds.IMAGES)
        masks = body.controlnet_masks or [None] * len(images)
        left = bounds.PixelBudget()
        with self._services.preprocess.held():
            results = [self._run(body, image, mask, left) for image, mask in zip(images, masks, strict=True)]
        if body.low_vram:
            self._services.preprocess.unload()
        notes += [note for result in results for note in result.notes]
        info = ". ".join(["Success", *dict.fromkeys(notes)])
        return {**_encoded([result.found for result in results], body.controlnet_tensor_format), "info": info}

    def render_poses(self, poses: list[models.ControlNetPose]) -> Any:
        """Draws poses in OpenPose's JSON as the maps that pose models take."""
        if not poses:
            return {"info": "No pose data detected."}
        bounds.check_count("poses", len(poses), bounds.IMAGES)
        bounds.check_count("people", sum(len(pose.people) + len(pose.animals) for pose in poses), bounds.PEOPLE)
        left = bounds.PixelBudget()
        try:
            drawn = []
            for pose in poses:
                drawn.append(self._services.draw_pose(pose.content()))
                left.spend(*drawn[-1].shape[:2])
            return {"images": [_png(map_) for map_ in drawn]}
        except Exception as error:
            if isinstance(error, ControlNetError) or not hasattr(error, "problem"):
                raise
            raise HTTPException(UNPROCESSABLE, str(error)) from error  # the annotator's own errors explain themselves

    def _specs(self) -> list[Any]:
        return [entry.spec for entry in self._services.annotators.entries]

    def _run(
        self, body: models.ControlNetDetect, image: str, mask: str | None, left: bounds.PixelBudget
    ) -> PreprocessResult:
        fields = {
            "enabled": True,
            "module": body.controlnet_module,
            "image": image,
            "mask": mask,
            "processor_res": body.controlnet_processor_res,
            "threshold_a": body.controlnet_threshold_a,
            "threshold_b": body.controlnet_threshold_b,
        }
        try:
            unit = parse_unit(fields, 0)
            if unit.image is None:
                raise HTTPException(UNPROCESSABLE, "No image selected")
            left.spend(*unit.image.shape[:2])
            with self._lock:
                return see(self._services.preprocess, unit, Source(unit.image, unit.mask, unit.resize_mode))
        except ControlNetError as error:
            raise error.without_unit() from error


def _encoded(found: Sequence[Found], tensor_format: str) -> dict[str, list[Any]]:
    """Maps, poses and embeddings as the answer has them; only the keys that the preprocessor fills."""
    columns: dict[str, list[Any]] = {
        "images": [_png(inpaint_display(f.map) if f.map.shape[2] == 4 else f.map) for f in found if f.map is not None],
        "poses": [f.pose for f in found if f.pose is not None],
        "tensor": [_tensors(f.tensors, tensor_format) for f in found if f.tensors is not None],
    }
    return {name: column for name, column in columns.items() if column}


def _tensors(tensors: Mapping[str, Any], tensor_format: str) -> str:
    """Embeddings by name in base64: safetensors, or what torch.save makes of them, alone where there is only one."""
    import safetensors.torch
    import torch

    if tensor_format == "safetensors":
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        return base64.b64encode(safetensors.torch.save(contiguous)).decode()
    buffer = io.BytesIO()
    torch.save(dict(tensors) if len(tensors) > 1 else next(iter(tensors.values())), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _png(pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
