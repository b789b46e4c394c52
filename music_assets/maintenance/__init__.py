"""Commands for the operator of a data root: `doctor` checks, `rebuild` recomputes, `accept` publishes.

The checks of every refresh belong to `defs/checks`, the detection of damaged files to `storage/integrity`.
"""
