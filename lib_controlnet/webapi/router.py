"""How all our routes refuse: with a status that is meant, and one sentence in `detail`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ..core.errors import ControlNetError, plain_text
from . import models

UNPROCESSABLE = 422


class ApiRoute(APIRoute):
    """A route whose refusals say what is wrong and nothing of what was sent, which may be long, or no JSON (NaN)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with its errors and ours as answers."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise HTTPException(UNPROCESSABLE, _invalid(error)) from None
            except ControlNetError as error:
                raise HTTPException(error.status_code, error.detail) from error

        return answer


def new_router(dependencies: list[Any]) -> APIRouter:
    """A router of such routes, each behind `dependencies`."""
    return APIRouter(
        route_class=ApiRoute,
        dependencies=dependencies,
        tags=["ControlNet"],
        responses={UNPROCESSABLE: {"model": models.ControlNetRefusal}},
    )


def _invalid(error: RequestValidationError) -> str:
    """Which field is wrong and how, for each; pydantic's own list would repeat the request."""
    said = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if part != "body")
        said.append(f"{place or 'the request'}: {item['msg']}")
    return plain_text("; ".join(said[:10]))
