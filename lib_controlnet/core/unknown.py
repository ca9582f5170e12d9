"""Keys that mean nothing here: clients of other versions send them; a misspelt one would drop what it was to say."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from .errors import UnitError, shown
from .legacy import key_name

CLOSE = 0.7
"""difflib's ratio from which a key is taken for a misspelt known one: "wieght" is 0.83 to "weight"."""


def unknown_key(key: str, known: Collection[str]) -> str:
    """What to say of a key that is not `known`. Raises UnitError where it is close to one that is."""
    close = difflib.get_close_matches(key_name(key)[:100], known, n=3, cutoff=CLOSE)
    if close:
        raise UnitError(
            "there is no such field, it would have no effect",
            field=shown(key, 100),
            remedy=f"did you mean {' or '.join(close)}? Otherwise leave it out",
        )
    return f'there is no field "{shown(key, 100)}"; it was passed over'
