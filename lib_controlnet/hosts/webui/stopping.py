"""How a job is stopped whose control cannot reach its pictures, in hosts that swallow the exceptions of callbacks.

Nothing here raises by itself, whatever the host is like.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ...engine.injection import RaisingHook
from .notes import say, say_late

log = logging.getLogger("ControlNet")

_NETWORKS = (
    "model.diffusion_model",  # AUTOMATIC1111, reForge, Classic
    "forge_objects.unet.model.diffusion_model",  # Forge, Forge Neo
    "unet",  # SD.Next and other hosts with diffusers' pipelines
    "transformer",
    "prior_pipe.prior",
    "decoder_pipe.decoder",
)
"""Where below `shared.sd_model` hosts keep the network whose call means sampling."""


def networks() -> Iterator[nn.Module]:
    """Every network of the loaded checkpoint whose call means sampling; none where we know none."""
    model = _asked(lambda: _modules().shared.sd_model)
    seen: set[int] = set()
    for path in _NETWORKS:
        found = _asked(lambda path=path: _below(model, path))
        if isinstance(found, nn.Module) and id(found) not in seen:
            seen.add(id(found))
            yield found


def arm(error: Exception) -> list[RaisingHook]:
    """Makes every such network raise `error` when it is called; the hooks that do."""
    hooks = (_asked(lambda network=network: RaisingHook(network, error)) for network in networks())
    return [hook for hook in hooks if hook is not None]


def interrupt(p: Any, error: Exception) -> None:
    """The last resort before the sampling: the host's own Interrupt, with the reason in the job's comments and log."""
    _asked(lambda: _modules().shared.state.interrupt())
    say(p, f"the job was interrupted: {error}")


def was_interrupted(after_this: bool = False) -> bool:
    """The user has pressed Interrupt or Skip; "stop after this one" lets the sampling run to its end,
    and counts with `after_this` alone.
    """
    state = _asked(lambda: _modules().shared.state)
    names = ("interrupted", "skipped", "stopping_generation")
    return any(getattr(state, name, False) for name in (names if after_this else names[:2]))


def refuse(p: Any, processed: Any, error: Exception) -> None:
    """The last resort after the sampling: the answer that the host is about to write raises `error` instead.

    Page and API both ask the result for its text (`Processed.js`), outside of what swallows exceptions.
    """
    say_late(p, processed, f"the pictures are not what the units ask for: {error}")

    def answer(*_: object, **__: object) -> str:
        raise error

    _asked(lambda: setattr(processed, "js", answer))


def _modules() -> Any:
    import modules.shared

    return modules


def _below(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model


def _asked(ask: Callable[[], Any]) -> Any:
    """What `ask` gives, None where the host has it not or fails."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 (a host's property can raise anything, and reporting must not fail)
        log.debug("The host could not be asked: %s", error)
        return None
