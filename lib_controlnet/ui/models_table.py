"""The tables of the page "Models": what is here and what could be, chosen by type, kind, words and what fits (HTML)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ..core import model_catalogue
from ..core.control_types import ALL, NO_MODEL, models_of
from ..core.errors import ControlNetError
from ..core.model_catalogue import OfferedModel
from ..engine import defaults
from ..engine.library import ModelEntry
from ..engine.services import PageServices
from ..engine.weights import human_size
from .model_offer import offered

_MODEL_HEAD = ("Model", "Kind", "Made for", "Size", "Folder", "With this checkpoint")
_OFFER_HEAD = ("To download", "Kind", "For", "Types", "Size", "Licence", "sha256")
_SKIPPED_HEAD = ("File or folder", "Why")
_WEIGHT_HEAD = ("Preprocessor", "File", "Size", "Licence", "Where")
ANY = "Any"
WORKS = "works"


@dataclass(frozen=True)
class Wanted:
    """What the tables show. contains: words that must all be in a row, in any case. kind: of `kinds`. control_type:
    one of the panel's. fitting: only what controls the loaded checkpoint.
    """

    contains: str = ""
    kind: str = ANY
    control_type: str = ALL
    fitting: bool = False

    def holds(self, row: Sequence[str], kind: str) -> bool:
        """Whether a row of this kind is shown, as far as its words tell."""
        text = " ".join(row).lower()
        wanted = self.kind == ANY or self.kind.lower() in kind.lower()
        return wanted and all(word in text for word in self.contains.lower().split())


EVERYTHING = Wanted()


def kinds() -> list[str]:
    """The kinds by which the tables can be narrowed."""
    own = dict.fromkeys(model.family for model in model_catalogue.MODELS)
    return [ANY, *own, "LLLite", "InstantID", "SparseCtrl", "BrushNet", "PuLID"]


def model_table(services: PageServices, wanted: Wanted = EVERYTHING) -> str:
    """The control models that are here, with what their files say."""
    entries = services.library.entries()
    of_type = models_of(wanted.control_type, [entry.name for entry in entries])
    rows = [_model_row(services, entry) for entry in entries if entry.name in of_type]
    shown = [row for row in rows if wanted.holds(row, row[1]) and (row[-1] == WORKS or not wanted.fitting)]
    return table("Control models", _MODEL_HEAD, shown)


def offers(services: PageServices, wanted: Wanted = EVERYTHING) -> list[OfferedModel]:
    """What can be downloaded and is not here, what fits the loaded checkpoint first."""
    if services.model_files is None:
        return []
    base = _base(services)
    found = [
        model
        for model in model_catalogue.MODELS
        if services.model_files.missing(model)
        and wanted.control_type in (ALL, *model.control_types)
        and (model.base == base or not wanted.fitting)
        and wanted.holds(_offer_row(model), model.family)
    ]
    return sorted(found, key=lambda model: model.base != base)


def offer_table(services: PageServices, wanted: Wanted = EVERYTHING) -> str:
    """What `offers` gives; "" on hosts that offer no downloads."""
    if services.model_files is None:
        return ""
    return table("Control models to download", _OFFER_HEAD, [_offer_row(model) for model in offers(services, wanted)])


def lacking(services: PageServices, control_type: str) -> str:
    """What a type lacks to work with the loaded checkpoint, and where that comes from; "" for all types."""
    if control_type == ALL:
        return ""
    lines: list[tuple[str, str]] = []
    spec = defaults.preprocessor(services, control_type)
    if spec is not None and not spec.model_free:
        lines.append(_model_line(services, control_type))
    missing = [] if spec is None else defaults.missing(services, spec)
    if spec is not None and missing:
        names = ", ".join(f"{file.name} ({human_size(file.size)}, {file.licence})" for file in missing)
        lines.append(("warn", f'The preprocessor "{spec.label}" lacks {names}: "Weights to download for", below'))
    elif spec is not None:
        lines.append(("good", f'The preprocessor "{spec.label}" has what it needs'))
    return "".join(f'<p class="cnet-note cnet-{kind}">{html.escape(line)}.</p>' for kind, line in lines)


def _model_line(services: PageServices, control_type: str) -> tuple[str, str]:
    base = _base(services)
    found = defaults.model(services, control_type)
    if found != NO_MODEL:
        return "good", f"{control_type}: {found} is here and fits"
    if not base:
        return "warn", f"{control_type}: what fits is known once a checkpoint is loaded"
    model = offered(services, control_type)
    if model is None:
        return "warn", f"{control_type}: no model here fits {base}, and this list knows none"
    said = f"{model.name} ({human_size(model.size)}, {model.licence})"
    return "warn", f"{control_type}: no model here fits {base}; recommended: {said}"


def problem_table(services: PageServices) -> str:
    """Settings with wrong values; "" where there is none."""
    rows = [(problem,) for problem in services.setting_problems()]
    return table("Settings", ("What is wrong",), rows) if rows else ""


def skipped_table(services: PageServices) -> str:
    """What lies in the model folders and could not be listed, with the reasons; "" where there is nothing."""
    rows = [(skipped.path, skipped.reason) for skipped in services.library.skipped]
    return table("Not listed", _SKIPPED_HEAD, rows) if rows else ""


def weight_table(services: PageServices, wanted: Wanted = EVERYTHING) -> str:
    """The weights of all preprocessors that can run here."""
    specs = [entry.spec for entry in services.annotators.entries]
    rows = [
        (spec.label, file.name, human_size(file.size), file.licence, str(services.weights.path(file) or "missing"))
        for spec in specs
        if wanted.control_type == ALL or wanted.control_type in spec.control_types
        for file in getattr(spec, "weights", ())
    ]
    anything = Wanted(wanted.contains)
    return table("Weights of preprocessors", _WEIGHT_HEAD, [row for row in rows if anything.holds(row, "")])


def _base(services: PageServices) -> str:
    try:
        return services.base_model().kind
    except ControlNetError:
        return ""


def _model_row(services: PageServices, entry: ModelEntry) -> tuple[str, ...]:
    facts = services.facts.read(entry.path)
    try:
        fits = facts.mismatch(services.base_model()) or WORKS
    except ControlNetError as error:
        fits = facts.problem or error.problem
    made_for = "" if facts.sheet is None else facts.sheet.made_for
    return entry.name, facts.kind, made_for, human_size(facts.size), str(entry.path.parent), fits


def _offer_row(model: OfferedModel) -> tuple[str, ...]:
    types = ", ".join(model.control_types)
    published = model.sha256[:12] or "the hub's record"
    return model.name, model.family, model.base, types, human_size(model.size), model.licence, published


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that can be scrolled by itself, with its number of rows."""

    def line(cells: Sequence[str], tag: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "<tr>" + "".join(f"<{tag}{scope}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows) or f'<tr><td colspan="{len(head)}">none</td></tr>'
    return (
        f'<div class="cnet-table" tabindex="0" role="region" aria-label="{html.escape(title)}"><table>'
        f"<caption>{html.escape(title)} ({len(rows)})</caption>"
        f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table></div>"
    )
