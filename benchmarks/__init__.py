"""Side-by-side runs of music-assets and what would be written or taken in its place.

`python -m benchmarks` runs cases and keeps what it measured in `results.jsonl`; `python -m benchmarks.report` renders
`RESULTS.md` and the plots from that. Each case stands in a module of `cases/`, each peer in a file of `peers/`.
"""
