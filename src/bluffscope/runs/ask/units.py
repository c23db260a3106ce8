"""Units of measure: what they are called, what they measure, and how many base units they are."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """A unit: `value * factor + offset` is in the base unit of its kind."""

    kind: str
    factor: float
    offset: float = 0.0


_NAMES: Final[dict[Unit, str]] = {
    Unit("length", 1.0): r"m|met(?:er|re)s?",
    Unit("length", 1e3): r"km|kms|kilomet(?:er|re)s?",
    Unit("length", 1e-2): r"cm|centimet(?:er|re)s?",
    Unit("length", 1e-3): r"mm|millimet(?:er|re)s?",
    Unit("length", 1e-9): r"nm|nanomet(?:er|re)s?",
    Unit("length", 1609.344): r"mi|miles?",
    Unit("length", 1852.0): r"nautical miles?",
    Unit("length", 0.3048): r"ft|feet|foot|[\u2032']",
    Unit("length", 0.9144): r"yd|yds|yards?",
    Unit("length", 0.0254): r"in|inch|inches|[\u2033\"]",
    Unit("length", 9.4607304725808e15): r"light[- ]years?|ly",
    Unit("length", 1.495978707e11): r"au|astronomical units?",
    Unit("mass", 1.0): r"kg|kgs|kilos?|kilogram(?:me)?s?",
    Unit("mass", 1e-3): r"g|grams?|grammes?",
    Unit("mass", 1e-6): r"mg|milligram(?:me)?s?",
    Unit("mass", 1e3): r"t|tonnes?|metric tons?",
    Unit("mass", 907.18474): r"tons?|short tons?",
    Unit("mass", 0.45359237): r"lbs?|pounds?",
    Unit("mass", 0.028349523125): r"oz|ounces?",
    Unit("mass", 6.35029318): r"stones?",
    Unit("temperature", 1.0, 273.15): r"(?:\u00b0|degrees?) ?(?:c|celsius|centigrade)|celsius|c|\u2103",
    Unit("temperature", 5 / 9, 273.15 - 32 * 5 / 9): r"(?:\u00b0|degrees?) ?(?:f|fahrenheit)|fahrenheit|f|\u2109",
    Unit("temperature", 1.0): r"k|kelvins?",
    Unit("time", 1.0): r"s|secs?|seconds?",
    Unit("time", 1e-3): r"ms|milliseconds?",
    Unit("time", 60.0): r"min|mins|minutes?",
    Unit("time", 3600.0): r"h|hrs?|hours?",
    Unit("time", 86400.0): r"days?",
    Unit("time", 604800.0): r"weeks?",
    Unit("span", 1.0): r"months?",
    Unit("span", 12.0): r"years?|yrs?",
    Unit("span", 120.0): r"decades?",
    Unit("speed", 1.0): r"m/s|met(?:er|re)s? per second|mps",
    Unit("speed", 1e3): r"km/s|kilomet(?:er|re)s? per second",
    Unit("speed", 1 / 3.6): r"km/h|kph|kmh|kilomet(?:er|re)s? (?:per|an) hour",
    Unit("speed", 0.44704): r"mph|mi/h|miles (?:per|an) hour",
    Unit("speed", 1852 / 3600): r"knots?|kn",
    Unit("area", 1.0): r"m2|m\u00b2|sq(?:uare)?\.? m(?:et(?:er|re)s?)?",
    Unit("area", 1e6): r"km2|km\u00b2|sq(?:uare)?\.? (?:km|kilomet(?:er|re)s?)",
    Unit("area", 2589988.110336): r"mi2|mi\u00b2|sq(?:uare)?\.? mi(?:les?)?",
    Unit("area", 0.09290304): r"ft2|ft\u00b2|sq(?:uare)?\.? (?:ft|feet)",
    Unit("area", 1e4): r"ha|hectares?",
    Unit("area", 4046.8564224): r"acres?",
    Unit("volume", 1.0): r"l|lit(?:er|re)s?",
    Unit("volume", 1e-3): r"ml|millilit(?:er|re)s?",
    Unit("volume", 3.785411784): r"gal|gallons?",
    Unit("share", 0.01): r"%|percent|per cent|pct",
    Unit("dollar", 1.0): r"(?:us |u\.s\. )?dollars?|usd",
    Unit("dollar", 0.01): r"cents?",
    Unit("euro", 1.0): r"\u20ac|euros?|eur",
    Unit("sterling", 1.0): r"gbp|pounds? sterling",
    Unit("yen", 1.0): r"\u00a5|yen|jpy",
}
BEFORE: Final[dict[str, Unit]] = {
    "$": Unit("dollar", 1.0),
    "\u20ac": Unit("euro", 1.0),
    "\u00a3": Unit("sterling", 1.0),
    "\u00a5": Unit("yen", 1.0),
}
"""Signs that stand before a number."""
_PATTERNS: Final = [
    (re.compile(rf"[ \u00a0\u202f-]?(?:{name})(?![\w/])", re.IGNORECASE), unit) for unit, name in _NAMES.items()
]
_ASKED: Final = re.compile(
    r"\b(?:in|how many|of) ((?:square |nautical |metric |light[- ])?(?:celsius|fahrenheit|kelvin|percent|feet|inches|"
    r"[a-z]+s per [a-z]+|[a-z]{3,}s))\b|\b(percent)age\b",
    re.IGNORECASE,
)


def unit_after(text: str, place: int) -> tuple[Unit | None, int]:
    """The unit that a text names at a position, the longest name of all, and where it ends."""
    best: tuple[Unit | None, int] = (None, place)
    for pattern, unit in _PATTERNS:
        found = pattern.match(text, place)
        if found is not None and found.end() > best[1]:
            best = (unit, found.end())
    if best[0] is not None and text[place : best[1]].strip(" -") == "in" and re.match(r" \w", text[best[1] :]):
        return None, place  # "8 in the morning"
    return best


def unit_asked(question: str) -> Unit | None:
    """The unit in which a question wants its answer ("in miles", "how many kilograms"); None where it names none."""
    for found in _ASKED.finditer(question):
        name = found[1] or found[2]
        unit, end = unit_after(name, 0)
        if unit is not None and end == len(name):
            return unit
    return None
