"""The definitions that Dagster loads from this module."""

from music_assets.defs.build import build_definitions
from music_assets.settings import settings

defs = build_definitions(settings())
