"""What a control type begins with: the same for the page, the API and other extensions."""

from __future__ import annotations

from ..core.control_types import MIXED_TYPES, NO_MODEL, default_model, default_preprocessor, preprocessors_of, same_kind
from ..core.errors import ControlNetError
from ..core.preprocessors import PreprocessorSpec, WeightFile
from ..families.registry import own_controls
from .facts import Facts
from .services import PageServices, Services


def absent(services: Services) -> list[PreprocessorSpec]:
    """The data sheets of the preprocessors that are known and cannot run here."""
    disabled = getattr(services.annotators, "disabled", {})
    return [item.spec for item in disabled.values() if item.spec is not None]


def preprocessor(services: Services, control_type: str) -> PreprocessorSpec | None:
    """The type's own, also where it lacks weights: what stands in for it would be a surprise."""
    specs = [entry.spec for entry in services.annotators.entries]
    return default_preprocessor(control_type, specs, absent(services), deciding_model(services, control_type))


def deciding_model(services: Services, control_type: str) -> str:
    """The model after which the preprocessor of a mixed type is chosen."""
    if control_type not in MIXED_TYPES or not isinstance(services, PageServices):
        return NO_MODEL
    return model(services, control_type)


def model(services: PageServices, control_type: str) -> str:
    """The type's first model that fits the checkpoint."""
    return default_model(control_type, services.library.names(), lambda name: fits(services, name))


def fits(services: PageServices, name: str) -> bool:
    """Whether a model controls the loaded checkpoint, as far as that can be told without loading it."""
    facts = model_facts(services, name)
    try:
        return facts is None or not facts.mismatch(services.base_model())
    except ControlNetError:
        return not (facts and facts.problem)


def model_facts(services: PageServices, name: str) -> Facts | None:
    """What a model's file says of itself; None without a choice or where it is not found."""
    if name in ("", NO_MODEL):
        return None
    try:
        return services.facts.read(services.library.find(name).path)
    except ControlNetError:
        return None  # a name from a pasted text without its file


def unable(services: PageServices, spec: PreprocessorSpec) -> str:
    """Why a preprocessor that acts by itself cannot with this checkpoint, in a sentence; "" where it can."""
    effect = own_controls().get(spec.effect)
    if effect is None:
        return ""
    try:
        effect.check(services.base_model())
    except ControlNetError as error:
        return f"{error.problem}, and {error.found}" if error.field == "module" else ""
    return ""


def missing(services: PageServices, spec: PreprocessorSpec) -> list[WeightFile]:
    """The files that a preprocessor lacks here; none where it could do nothing with them."""
    return [] if unable(services, spec) else services.weights.missing(spec)


def equals(services: PageServices, control_type: str, spec: PreprocessorSpec) -> list[PreprocessorSpec]:
    """The type's preprocessors that find the same as one that lacks weights, and have theirs."""
    others = preprocessors_of(control_type, [entry.spec for entry in services.annotators.entries])
    return [one for one in others if one.id != spec.id and same_kind(one, spec) and not services.weights.missing(one)]
