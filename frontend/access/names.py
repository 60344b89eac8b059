"""What tenants, subjects, keys and stored items may be called: what every database can keep, and
find by an index, and what is one cell of a table.
"""

from __future__ import annotations

import re

MAX_LENGTH = 256  # characters: of a few together PostgreSQL's indexes take 2,700 bytes
# Ends of lines and other controls, and halves of characters, which no UTF-8 has.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_name(text: str) -> bool:
    """Whether it has 1 to MAX_LENGTH characters, of which some are seen and all can be stored."""
    return 0 < len(text) <= MAX_LENGTH and not text.isspace() and is_storable(text)


def is_storable(text: str) -> bool:
    return _UNFIT.search(text) is None
