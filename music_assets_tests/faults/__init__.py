"""What must hold when processes die or meet: kills at named points and at any time, a model, two of everything.

`python -m music_assets_tests.faults` is the extended run.
"""
