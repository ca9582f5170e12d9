"""Preprocessors that users of other extensions know and this version does not have.

They are not listed; asked for by name they are answered with what is missing instead of "unknown".
An entry leaves this table by getting a folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """A known preprocessor and what running it would need."""

    id: str
    needs: str
    label: str = ""
    control_types: tuple[str, ...] = ()
    alias: str = ""
    """Forge's name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it is asked for by."""
        return tuple(name for name in (self.id, self.label, self.alias) if name)

    @property
    def reason(self) -> str:
        """Why it is not offered, as a clause."""
        return f"it needs {self.needs}, which this version cannot run"


_DEPTH = ("Depth",)
_IP = ("IP-Adapter",)
_NORMAL = ("NormalMap",)


UNAVAILABLE: tuple[Unavailable, ...] = (
    Unavailable("depth_hand_refiner", "the weights of ControlNet-HandRefiner-pruned", control_types=_DEPTH),
    Unavailable("facexlib", "the weights and the library of facexlib"),
    Unavailable("ip-adapter-auto", "the IP-Adapter family", control_types=_IP),
    Unavailable("ip-adapter_pulid", "facexlib, antelopev2 and EVA02-CLIP-L-14-336", control_types=_IP),
    Unavailable("normal_dsine", "the weights dsine.pt", control_types=_NORMAL),
)
