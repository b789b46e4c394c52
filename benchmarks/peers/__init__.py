"""What would be written by hand, or taken, instead of music-assets: one file each, readable by itself.

The scripts are tuned as the documentation of their library advises. None of them gives any of the guarantees: a crash,
a bad row, a file dropped twice, or a reader at the wrong moment is nobody's concern here.
"""
