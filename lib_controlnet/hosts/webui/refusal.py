"""Our errors as hosts raise them: an expected refusal is answered over HTTP without a traceback in the log."""

from __future__ import annotations

from ...core.errors import ControlNetError, UnexpectedError


def refusal(error: Exception) -> ControlNetError:
    """`error` as what a host may raise: ours as FastAPI's HTTPException too, anybody's as an UnexpectedError.

    Hosts print the traceback of every exception that leaves a job of the API, except of this class. A host without an
    API has no FastAPI; there the error is what it was.
    """
    if not isinstance(error, ControlNetError):
        unexpected = UnexpectedError(f"control could not be added: {type(error).__name__}: {error}")
        unexpected.__cause__ = error
        return unexpected
    try:
        from fastapi import HTTPException
    except ImportError:
        return error
    if isinstance(error, HTTPException) or error.status_code >= 500:
        return error
    kind = type(error)
    both = type(kind.__name__, (kind, HTTPException), {"headers": None, "__module__": kind.__module__})
    raised = both(error.problem, unit=error.unit, field=error.field, found=error.found, remedy=error.remedy)
    raised.__cause__ = error.__cause__
    return raised
