"""The alternatives that music-assets is compared with, each readable without the others.

The scripts are tuned as the documentation of their libraries advises. None of them handles a crash, a bad row, a file
that is dropped twice, or a reader in the middle of a write.
"""
