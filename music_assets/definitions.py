"""What Dagster loads."""

from music_assets.build import build_definitions
from music_assets.settings import settings

defs = build_definitions(settings())
