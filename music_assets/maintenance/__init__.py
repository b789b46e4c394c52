"""Commands for the operator of a data root.

`doctor` checks it, `rebuild` recomputes what is derived, `accept` publishes in spite of rejected rows, `drops` lists
what was loaded, `retract` takes it back, and `forget` erases users. The checks of every refresh belong to
`defs/checks`, the detection of damaged files to `storage/integrity`.
"""
