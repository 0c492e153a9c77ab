"""Durations and sizes as text, in the unit that fits."""

HOURS = {"d": 24.0, "h": 1.0, "min": 1 / 60, "s": 1 / 3600}
BYTES = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}


def _in_fitting_unit(value: float, units: dict[str, float]) -> str:
    """Write a value in the largest unit of which it holds one, two digits or more."""
    smallest = list(units)[-1]
    unit = next((name for name, size in units.items() if value >= size), smallest)
    number = value / units[unit]
    return f"{number:,.0f} {unit}" if number >= 100 or number == 0 else f"{number:.1f} {unit}"


def as_time(hours: float) -> str:
    """Write a duration: ``12.5 s``, ``3.0 min``, ``5.2 h``, ``1.4 d``."""
    return _in_fitting_unit(hours, HOURS)


def as_size(n_bytes: float) -> str:
    """Write a size, thousands of thousands: ``345 MB``, ``1.2 TB``."""
    return _in_fitting_unit(n_bytes, BYTES)
