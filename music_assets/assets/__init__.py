"""The asset declarations: two to ten lines an asset. What they compute stands in transforms/."""
