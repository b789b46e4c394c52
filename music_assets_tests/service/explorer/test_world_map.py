"""World maps: names find their shapes, and values their levels."""

from importlib import resources

from music_assets.service.explorer.rendering import number
from music_assets.service.explorer.world_map import world_map

WITHOUT_SHAPE = {
    "Antarctica",
    "Bonaire, Sint Eustatius and Saba",
    "Bouvet Island",
    "Christmas Island",
    "Cocos (Keeling) Islands",
    "French Guiana",
    "Gibraltar",
    "Guadeloupe",
    "Martinique",
    "Mayotte",
    "Netherlands Antilles",
    "Reunion",
    "Réunion",
    "Serbia and Montenegro",
    "Svalbard and Jan Mayen",
    "Tokelau",
    "Tuvalu",
    "United States Minor Outlying Islands",
}
"""Part of another country in Natural Earth 1:50m, too small for it, or no longer a country."""


def test_every_country_name_but_these_has_a_shape() -> None:
    lines = resources.files("music_assets.defs").joinpath("country_names.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    assert set(world_map(dict.fromkeys(names, 1.0), number).missing) == WITHOUT_SHAPE


def test_levels_hold_equally_many_countries() -> None:
    values = {"Germany": 1.0, "France": 2.0, "Italy": 3.0, "Spain": 4.0, "Poland": 5.0, "Norway": 6.0}
    drawn = world_map(values, number)
    assert {country.name: country.level for country in drawn.countries if country.name} == {
        name: int(value) for name, value in values.items()
    }
    assert drawn.legend == [(level, f"from {level}") for level in range(1, 7)]


def test_equal_values_have_one_level() -> None:
    assert world_map({"Germany": 2.0, "France": 2.0}, number).legend == [(1, "from 2")]


def test_names_of_one_country_share_a_shape_and_the_larger_value_counts() -> None:
    drawn = world_map({"Turkey": 5.0, "Türkiye": 7.0, "Germany": 1.0}, number)
    assert [(country.name, country.label) for country in drawn.countries if country.level == 2] == [
        ("Türkiye", "Türkiye: 7")
    ]


def test_map_without_values_is_empty() -> None:
    drawn = world_map({}, number)
    assert drawn.legend == []
    assert {country.level for country in drawn.countries} == {0}
