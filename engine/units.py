"""Sizes and time spans as people write them. Pure."""

_DAY_S = 86_400.0
_SPANS = ((_DAY_S, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def humane_bytes(size_bytes: float) -> str:
    """Write a size by a unit that suits it."""
    size = float(size_bytes)
    for unit in _UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def humane_span(span_s: float) -> str:
    """Write a time span by its largest unit."""
    for unit_s, unit in _SPANS:
        if span_s >= unit_s:
            return f"{span_s / unit_s:.0f} {unit}"
    return "0 s"
