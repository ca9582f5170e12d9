"""`scripts.batch_hijack`: AnimateDiff takes the input modes from it. Batches of ours need no replaced host function."""

from __future__ import annotations

from .enums import InputMode

__all__ = ["BatchHijack", "InputMode", "instance"]


class BatchHijack:
    """sd-webui-controlnet's batch through the host's functions, which is never under way."""

    is_batch = False
    batch_index = 0
    batch_size = 1


instance = BatchHijack()
