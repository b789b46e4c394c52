"""Side-by-side measurements of music-assets and of hand-written or off-the-shelf alternatives.

`python -m benchmarks` runs cases and records the measurements in `results.jsonl`; `python -m benchmarks.report` renders
`RESULTS.md` and the plots. `cases/` has what is measured, `peers/` the alternatives, `notes/` the prose of the report.
"""
