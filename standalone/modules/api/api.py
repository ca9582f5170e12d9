"""The routes of /sdapi/v1."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import (
    extensions,
    images,
    infotext_utils,
    progress,
    script_callbacks,
    scripts,
    sd_models,
    sd_samplers,
    sd_schedulers,
    shared,
)
from modules.api import middleware, models
from modules.api.images_io import decode_base64_to_image, encode_pil_to_base64, verify_url
from modules.api.jobs import Jobs
from modules.api.threads import waiting
from modules.shared_cmd_options import cmd_opts

from standalone.server_logins import Logins

__all__ = ["Api", "decode_base64_to_image", "encode_pil_to_base64", "verify_url"]


SECRETS = ("api_auth", "gradio_auth")


def _ram() -> dict[str, Any]:
    import psutil

    process = psutil.Process(os.getpid())
    used, total = process.memory_info().rss, psutil.virtual_memory().total
    return {"free": total - used, "used": used, "total": total}


def _cuda() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info()
    stats = torch.cuda.memory_stats(shared.device)
    kinds = {
        name: {"current": stats[f"{name}_bytes.all.current"], "peak": stats[f"{name}_bytes.all.peak"]}
        for name in ("active", "allocated", "reserved")
    }
    events = {"retries": stats["num_alloc_retries"], "oom": stats["num_ooms"]}
    return {"system": {"free": free, "used": total - free, "total": total}, **kinds, "events": events}


class Api:
    """All routes on `app`; with --api-auth each asks for a user and password."""

    def __init__(self, app: FastAPI, queue_lock: Any) -> None:
        self.app = app
        self.queue_lock = queue_lock
        self.credentials = dict(Logins.of(cmd_opts).for_api)
        middleware.install(app)
        self.jobs = Jobs(queue_lock)
        self._add_job_routes()
        self._add_information_routes()

    @property
    def default_script_arg_txt2img(self) -> list[Any]:
        return self.jobs.default_script_arg_txt2img

    @property
    def default_script_arg_img2img(self) -> list[Any]:
        return self.jobs.default_script_arg_img2img

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **kwargs: Any) -> None:
        if self.credentials:
            kwargs["dependencies"] = [Depends(self.auth)]
        self.app.add_api_route(path, endpoint, **kwargs)

    def auth(self, credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> bool:  # noqa: B008 - FastAPI's way
        expected = self.credentials.get(credentials.username)
        if expected is not None and compare_digest(credentials.password.encode(), expected.encode()):
            return True
        detail = "Incorrect username or password"
        raise HTTPException(status_code=401, detail=detail, headers={"WWW-Authenticate": "Basic"})

    def _get(self, name: str, endpoint: Callable[..., Any], model: Any = None) -> None:
        kwargs = {} if model is None else {"response_model": model}
        self.add_api_route(f"/sdapi/v1/{name}", endpoint, methods=["GET"], **kwargs)

    def _post(self, name: str, endpoint: Callable[..., Any], model: Any = None) -> None:
        kwargs = {} if model is None else {"response_model": model}
        self.add_api_route(f"/sdapi/v1/{name}", endpoint, methods=["POST"], **kwargs)

    def _add_job_routes(self) -> None:
        self._post("txt2img", waiting(self.jobs.text2imgapi), models.TextToImageResponse)
        self._post("img2img", waiting(self.jobs.img2imgapi), models.ImageToImageResponse)
        self._post("png-info", self.pnginfoapi, models.PNGInfoResponse)
        self._get("progress", self.progressapi, models.ProgressResponse)
        self._post("interrupt", self.interruptapi)
        self._post("skip", self.skip)
        self._post("options", waiting(self.set_config))
        self._post("refresh-checkpoints", waiting(self.refresh_checkpoints))
        self._post("unload-checkpoint", waiting(self.unloadapi))
        self._post("reload-checkpoint", waiting(self.reloadapi))

    def _add_information_routes(self) -> None:
        self._get("options", self.get_config, models.options_model(shared.opts))
        self._get("cmd-flags", self.get_cmd_flags, models.flags_model())
        self._get("samplers", self.get_samplers, list[models.SamplerItem])
        self._get("schedulers", self.get_schedulers, list[models.SchedulerItem])
        self._get("upscalers", self.get_upscalers, list[models.UpscalerItem])
        self._get("latent-upscale-modes", self.get_latent_upscale_modes, list[models.LatentUpscalerModeItem])
        self._get("sd-models", self.get_sd_models, list[models.SDModelItem])
        self._get("embeddings", self.get_embeddings, models.EmbeddingsResponse)
        for name in ("sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles"):
            self._get(name, self.get_nothing, list[dict])
        self._get("memory", self.get_memory, models.MemoryResponse)
        self._get("scripts", self.get_scripts_list, models.ScriptsList)
        self._get("script-info", self.get_script_info, list[models.ScriptInfo])
        self._get("extensions", self.get_extensions_list, list[models.ExtensionItem])

    # actions

    def pnginfoapi(self, req: models.PNGInfoRequest) -> Any:
        geninfo, items = images.read_info_from_image(decode_base64_to_image(req.image.strip()))
        params = infotext_utils.parse_generation_parameters(geninfo or "")
        script_callbacks.infotext_pasted_callback(geninfo or "", params)
        return models.PNGInfoResponse(info=geninfo or "", items=items, parameters=params)

    def progressapi(self, req: models.ProgressRequest = Depends()) -> Any:  # noqa: B008 - FastAPI's way
        state = shared.state
        done, left = progress.estimate()
        if state.job_count == 0:
            return models.ProgressResponse(progress=0, eta_relative=0, state=state.dict(), textinfo=state.textinfo)
        state.set_current_image()
        image = None
        if state.current_image is not None and not req.skip_current_image:
            image = encode_pil_to_base64(state.current_image).decode()
        return models.ProgressResponse(
            progress=done,
            eta_relative=left,
            state=state.dict(),
            current_image=image,
            textinfo=state.textinfo,
            current_task=progress.current_task,
        )

    def interruptapi(self) -> dict[str, Any]:
        shared.state.interrupt()
        return {}

    def skip(self) -> None:
        shared.state.skip()

    def set_config(self, req: dict[str, Any]) -> dict[str, Any] | None:
        """Settings that the page alone may change stay as they are, as in the real host; the answer names them."""
        name = req.get("sd_model_checkpoint")
        if name is not None and name not in sd_models.checkpoint_aliases:
            raise RuntimeError(f"model {name!r} not found")
        restricted = shared.opts.restricted(req)
        for key, value in req.items():
            shared.opts.set(key, value, is_api=True)
        shared.opts.save(shared.config_filename)
        return {"not_changed": restricted, "reason": "changed on the page Settings only"} if restricted else None

    def refresh_checkpoints(self) -> None:
        with self.queue_lock:
            shared.refresh_checkpoints()

    def unloadapi(self) -> dict[str, Any]:
        with self.queue_lock:
            sd_models.unload_model_weights()
        return {}

    def reloadapi(self) -> dict[str, Any]:
        with self.queue_lock:
            sd_models.send_model_to_device(shared.sd_model)
        return {}

    # information

    def get_config(self) -> dict[str, Any]:
        return dict(shared.opts.data.items())

    def get_cmd_flags(self) -> dict[str, Any]:
        """The command line; logins are not for everybody who has one."""
        return {key: "***" if value and key in SECRETS else value for key, value in vars(cmd_opts).items()}

    def get_samplers(self) -> list[dict[str, Any]]:
        return [
            {"name": x.name, "aliases": x.aliases, "options": {k: str(v) for k, v in x.options.items()}}
            for x in sd_samplers.all_samplers
        ]

    def get_schedulers(self) -> list[dict[str, Any]]:
        names = ("name", "label", "aliases", "default_rho", "need_inner_model")
        return [{name: getattr(x, name) for name in names} for x in sd_schedulers.schedulers]

    def get_upscalers(self) -> list[dict[str, Any]]:
        return [
            {"name": x.name, "model_name": None, "model_path": x.data_path, "model_url": None, "scale": x.scale}
            for x in shared.sd_upscalers
        ]

    def get_latent_upscale_modes(self) -> list[dict[str, Any]]:
        return [{"name": x} for x in shared.latent_upscale_modes]

    def get_sd_models(self) -> list[dict[str, Any]]:
        def sidecar(filename: str) -> str | None:
            file = Path(filename).with_suffix(".yaml")
            return str(file) if file.is_file() else None

        return [
            {
                "title": x.title,
                "model_name": x.model_name,
                "hash": x.shorthash,
                "sha256": x.sha256,
                "filename": x.filename,
                "config": sidecar(x.filename),
            }
            for x in sd_models.checkpoints_list.values()
        ]

    def get_embeddings(self) -> dict[str, Any]:
        return {"loaded": {}, "skipped": {}}

    def get_nothing(self) -> list[Any]:
        """This host has none of these."""
        return []

    def get_memory(self) -> Any:
        return models.MemoryResponse(ram=_ram(), cuda=_cuda())

    def get_scripts_list(self) -> Any:
        names = [
            [x.name for x in runner.scripts if x.name is not None]
            for runner in (scripts.scripts_txt2img, scripts.scripts_img2img)
        ]
        return models.ScriptsList(txt2img=names[0], img2img=names[1])

    def get_script_info(self) -> list[Any]:
        runners = (scripts.scripts_txt2img, scripts.scripts_img2img)
        return [x.api_info for runner in runners for x in runner.scripts if x.api_info is not None]

    def get_extensions_list(self) -> list[dict[str, Any]]:
        names = ("name", "remote", "branch", "commit_hash", "version", "enabled")
        return [
            {**{n: getattr(x, n) or "" for n in names}, "commit_date": str(x.commit_date or ""), "enabled": x.enabled}
            for x in extensions.extensions
        ]
