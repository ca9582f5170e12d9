"""Routes of the page itself (progress, settings), and the server's middleware."""

from __future__ import annotations

import base64
import io
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import FileResponse


class ProgressQuery(BaseModel):
    id_task: str
    id_live_preview: int = -1


def _preview(image: Any) -> str:
    with io.BytesIO() as buffer:
        image.save(buffer, format="PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def add_middleware(app: FastAPI, host: Any, options: Any) -> None:
    """Compressed answers, and the origins the user named."""
    add = host.modules("api.middleware").add_middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware

    add(app, GZipMiddleware, minimum_size=1000)
    origins = [x for x in (options.cors_allow_origins or "").split(",") if x]
    if origins or options.cors_allow_origins_regex:
        add(
            app,
            CORSMiddleware,
            allow_origins=origins,
            allow_origin_regex=options.cors_allow_origins_regex,
            allow_methods=["*"],
            allow_headers=["*"],
            allow_credentials=True,
        )


def add_internal_routes(app: FastAPI, host: Any) -> None:
    """What the page's script asks for."""
    progress, shared = host.modules("progress"), host.modules("shared")

    def report(query: ProgressQuery) -> dict[str, Any]:
        active = query.id_task == progress.current_task
        queued = query.id_task in progress.pending_tasks
        answer = {"active": active, "queued": queued, "completed": query.id_task in progress.finished_tasks}
        if not active:
            return answer
        state = shared.state
        done, left = progress.estimate()
        state.set_current_image()
        fresh = state.current_image is not None and state.id_live_preview != query.id_live_preview
        preview = _preview(state.current_image) if fresh else None
        return {
            **answer,
            "progress": done,
            "eta": left,
            "textinfo": state.textinfo,
            "live_preview": preview,
            "id_live_preview": state.id_live_preview,
        }

    drawing = host.modules("ui_first_run").DRAWING if host.with_page else None
    if drawing is not None and drawing.is_file():
        app.get("/internal/first-run/drawing")(lambda: FileResponse(drawing))
    app.post("/internal/progress")(report)
    app.get("/internal/ping")(lambda: {})
    app.get("/internal/options")(lambda: shared.opts.data)
