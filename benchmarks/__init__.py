"""Side-by-side measurements of music-assets and of hand-written or off-the-shelf alternatives.

`cases/` has what is measured, `peers/` the alternatives, `notes/` the prose of the report.
"""
