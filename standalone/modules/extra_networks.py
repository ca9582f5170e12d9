"""`<name:args>` in prompts: parsed and handed to registered networks (this host ships none)."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from typing import Any

from modules import devices, errors

extra_network_registry: dict[str, ExtraNetwork] = {}
PATTERN = re.compile(r"<(\w+):([^>]+)>")


class ExtraNetworkParams:
    """`<lora:name:0.5>` has items ["name", "0.5"]; `a=1` items are also in `named`."""

    def __init__(self, items: list[str] | None = None) -> None:
        self.items = items or []
        self.positional = [x for x in self.items if "=" not in x]
        self.named = dict(x.split("=", 1) for x in self.items if "=" in x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExtraNetworkParams) and self.items == other.items

    def __hash__(self) -> int:
        return hash(tuple(self.items))


class ExtraNetwork:
    """What `<name:...>` in a prompt stands for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def activate(self, p: Any, params_list: list[ExtraNetworkParams]) -> None:
        """Called for each batch, with [] when no prompt mentions it."""
        raise NotImplementedError(f"the extra network {self.name} has no activate()")

    def deactivate(self, p: Any) -> None:
        """Called when the job is over."""
        raise NotImplementedError(f"the extra network {self.name} has no deactivate()")


def register_extra_network(extra_network: ExtraNetwork) -> None:
    extra_network_registry[extra_network.name] = extra_network


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict[str, list[ExtraNetworkParams]]]:
    """Prompts without the tags, and the tags of the first prompt by network name."""
    found: dict[str, list[ExtraNetworkParams]] = defaultdict(list)
    for name, args in PATTERN.findall(prompts[0]) if prompts else []:
        found[name].append(ExtraNetworkParams(args.split(":")))
    return [PATTERN.sub("", x) for x in prompts], dict(found)


def activate(p: Any, extra_network_data: dict[str, list[ExtraNetworkParams]]) -> None:
    """Activate all registered networks (with [] when not mentioned), then tell the scripts, in the host's precision."""
    with devices.autocast():
        _activate_registered(p, extra_network_data)
        _tell_scripts(p, extra_network_data)


def _activate_registered(p: Any, extra_network_data: dict[str, list[ExtraNetworkParams]]) -> None:
    for name, network in extra_network_registry.items():
        try:
            network.activate(p, extra_network_data.get(name, []))
        except Exception as e:  # noqa: BLE001 - the host's rule
            errors.display(e, f"activating extra network {name}")
    for name in extra_network_data:
        if name not in extra_network_registry:
            logging.getLogger(__name__).info("Skipping unknown extra network: %s", name)


def _tell_scripts(p: Any, extra_network_data: dict[str, list[ExtraNetworkParams]]) -> None:
    if p.scripts is not None:
        p.scripts.after_extra_networks_activate(
            p,
            batch_number=p.iteration,
            prompts=p.prompts,
            seeds=p.seeds,
            subseeds=p.subseeds,
            extra_network_data=extra_network_data,
        )


def deactivate(p: Any, extra_network_data: dict[str, list[ExtraNetworkParams]]) -> None:
    for name, network in extra_network_registry.items():
        try:
            network.deactivate(p)
        except Exception as e:  # noqa: BLE001 - the host's rule
            errors.display(e, f"deactivating extra network {name}")
