"""World maps: the countries of Natural Earth, shaded by a value."""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LEVELS = 6


@dataclass(frozen=True)
class MapCountry:
    """A country on the map. `level` is 0 without a value, else 1 (smallest values) to 6."""

    path: str
    name: str
    level: int
    label: str


@dataclass(frozen=True)
class WorldMap:
    """A map to draw: its countries, the range of values of each level, and the countries that have no shape."""

    width: int
    height: int
    countries: list[MapCountry]
    legend: list[tuple[int, str]]
    missing: list[str]


def world_map(
    values: Mapping[str, float], describe: Callable[[float], str], scale: Iterable[float] | None = None
) -> WorldMap:
    """Return a map of values by country name; `describe` formats a value.

    Levels hold about the same number of countries, or of the values in `scale`, which maps to compare have in common.
    Where several names share a shape, the largest value counts.
    """
    found: dict[str, str] = {}
    missing = []
    for name in sorted(values, key=lambda name: values[name]):
        code = _codes().get(name.casefold(), "")
        if code in _shapes():
            found[code] = name
        else:
            missing.append(name)
    bounds = _bounds(sorted(scale or (values[name] for name in found.values())))
    countries = []
    for code, shape in _shapes().items():
        name = found.get(code, "")
        level = bisect_right(bounds, values[name]) if name else 0
        label = f"{name}: {describe(values[name])}" if name else f"{shape['name']}: no data"
        countries.append(MapCountry(shape["path"], name, level, label))
    return WorldMap(_world()["width"], _world()["height"], countries, _legend(bounds, describe), missing[::-1])


def _bounds(ordered: list[float]) -> list[float]:
    """Return the smallest value of each level, for values in ascending order."""
    return sorted({ordered[len(ordered) * level // LEVELS] for level in range(LEVELS)}) if ordered else []


def _legend(bounds: list[float], describe: Callable[[float], str]) -> list[tuple[int, str]]:
    return [(level, f"from {describe(bound)}") for level, bound in enumerate(bounds, start=1)]


@cache
def _world() -> dict[str, Any]:
    world: dict[str, Any] = json.loads(Path(__file__).with_name("world_shapes.json").read_text(encoding="utf-8"))
    return world


@cache
def _shapes() -> dict[str, dict[str, str]]:
    return {shape["id"]: shape for shape in _world()["shapes"]}


@cache
def _codes() -> dict[str, str]:
    codes = json.loads(Path(__file__).with_name("country_codes.json").read_text(encoding="utf-8"))
    return {name.casefold(): code for name, code in codes.items()}
