"""Settings of property tests."""

from hypothesis import settings


def examples(number: int) -> settings:
    """Return settings with `number` examples under the hypothesis profile `ci`, and a tenth of it under `dev`."""
    return settings(max_examples=number if settings.get_current_profile_name() == "ci" else max(number // 10, 2))
