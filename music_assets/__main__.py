"""The command, also as `python -m music_assets`, or what to install where only the client is."""

import sys


def main() -> None:
    """Run the command."""
    try:
        from music_assets.cli import app
    except KeyboardInterrupt:
        sys.exit(130)  # as the commands do
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("music_assets"):
            raise
        sys.exit(f"music-assets: {error.name} is not installed. Run: pip install 'music-assets[pipeline]'")
    app()


if __name__ == "__main__":
    main()
