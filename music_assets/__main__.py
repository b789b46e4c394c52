"""Runs the command as `python -m music_assets`."""

from music_assets.cli import app

app()
