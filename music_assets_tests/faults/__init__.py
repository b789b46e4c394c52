"""What holds when processes die or run at the same time: kills, recovery, concurrency, and a model of the tables.

`python -m music_assets_tests.faults` kills many more runs.
"""
