"""Errors as JSON, and the time a request took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from modules import errors
from modules.api.echo import echo
from modules.shared_cmd_options import cmd_opts
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

Next = Callable[[Request], Awaitable[Response]]


def _cause(e: Exception) -> Exception:
    """The one exception in a task group's wrapping; newer anyio wraps what a route raises."""
    while len(getattr(e, "exceptions", ())) == 1:
        e = e.exceptions[0]  # type: ignore[attr-defined]
    return e


def error_response(request: Request, e: Exception) -> JSONResponse:
    """{"error", "detail", "body", "errors"} with the exception's status or 500."""
    e = _cause(e)
    if isinstance(e, OverflowError) and str(e) == "int too large to convert to float":  # pydantic 1, reading the body
        e = errors.WrongRequest("a number in the request is too large")
    known = vars(e)
    content = {
        "error": type(e).__name__,
        "detail": known.get("detail", ""),
        "body": known.get("body", ""),
        "errors": str(e),
    }
    if not isinstance(e, (HTTPException, errors.WrongRequest)):  # these explain themselves
        errors.report(f"API error: {request.method}: {request.url} {content}", exc_info=True)
    return JSONResponse(
        status_code=known.get("status_code", 500), content=jsonable_encoder(echo(content)), headers=known.get("headers")
    )


def add_middleware(app: FastAPI, middleware: Any, **options: Any) -> None:
    """Put a middleware around the application, also when it answers requests already."""
    app.user_middleware.insert(0, Middleware(middleware, **options))
    app.middleware_stack = None  # built again at the next request


def install(app: FastAPI) -> None:
    """Errors of all routes become JSON; every answer says how long it took."""

    async def log_and_time(request: Request, call_next: Next) -> Response:
        start = time.time()
        response = await call_next(request)
        duration = f"{time.time() - start:.4f}"
        response.headers["X-Process-Time"] = duration
        if cmd_opts.api_log and request.url.path.startswith("/sdapi"):
            print(f"API {response.status_code} {request.method} {request.url.path} {duration}")
        return response

    async def exception_handling(request: Request, call_next: Next) -> Response:
        try:
            return await call_next(request)
        except Exception as e:  # noqa: BLE001 - every error is answered
            return error_response(request, e)

    async def http_exception_handler(request: Request, e: HTTPException) -> Response:
        return error_response(request, e)

    async def invalid_handler(_: Request, e: RequestValidationError) -> Response:
        return JSONResponse(status_code=422, content={"detail": jsonable_encoder(echo(list(e.errors())))})

    add_middleware(app, BaseHTTPMiddleware, dispatch=log_and_time)
    add_middleware(app, BaseHTTPMiddleware, dispatch=exception_handling)
    app.add_exception_handler(HTTPException, http_exception_handler)
    app.add_exception_handler(RequestValidationError, invalid_handler)
