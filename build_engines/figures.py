"""How numbers are written for people: sizes, counts, and classes of time."""

from __future__ import annotations

_TIME_CLASSES = ((60, "about a minute"), (600, "minutes"), (3600, "tens of minutes"))


def size(num_bytes: int) -> str:
    """Bytes, in the unit that they are large in."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def spaced(number: int) -> str:
    """A count, its thousands apart."""
    return f"{number:,}".replace(",", " ")


def time_class(num_bytes: int, bytes_per_s: float) -> str:
    """About how long going through so many bytes takes: an estimate; "" for none."""
    if num_bytes == 0:
        return ""
    seconds = num_bytes / bytes_per_s
    return next((name for limit_s, name in _TIME_CLASSES if seconds < limit_s), "hours")
