"""Write country_codes.json: the ISO 3166 number of each country name, with which the world map finds the shape.

`make vendor` runs it. pycountry knows the official names; those below are older ones, and spellings without accents.
"""

import json
from pathlib import Path

import pycountry

PACKAGE = Path(__file__).parents[1] / "music_assets"
BY_HAND = {
    "Aland Islands": "248",
    "Cape Verde": "132",
    "Cote d'Ivoire": "384",
    "Cote D'Ivoire": "384",
    "Curacao": "531",
    "Kosovo": "Kosovo",
    "Libyan Arab Jamahiriya": "434",
    "Macedonia": "807",
    "Macedonia, The Former Yugoslav Republic of": "807",
    "Macedonia, the former Yugoslav Republic of": "807",
    "Palestinian Territory, Occupied": "275",
    "Reunion": "638",
    "Saint Barthelemy": "652",
    "Saint Helena": "654",
    "Swaziland": "748",
    "Turkey": "792",
}


def code(name: str) -> str | None:
    """Return the number of a country, or None if ISO 3166 no longer knows it."""
    try:
        return BY_HAND.get(name) or pycountry.countries.lookup(name).numeric
    except LookupError:
        return None


lines = (PACKAGE / "defs" / "country_names.txt").read_text(encoding="utf-8").splitlines()
names = sorted({line for line in lines if line and not line.startswith("#")} | BY_HAND.keys())
codes = {name: number for name in names if (number := code(name))}
target = PACKAGE / "service" / "explorer" / "country_codes.json"
target.write_text(json.dumps(codes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
