"""The asset declarations: two to ten lines an asset. What they compute stands in transforms/."""

OWNERS = ["team:music-data"]
"""Who is asked about an asset."""
