"""The script's arguments, where a host looks for them (see core/arguments.py)."""

from ..core.arguments import FIELDS, SLOTS, as_mapping, units_from_args, widget_mappings

__all__ = ["FIELDS", "SLOTS", "as_mapping", "units_from_args", "widget_mappings"]
