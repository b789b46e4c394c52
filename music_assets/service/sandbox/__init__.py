"""Where strangers' SQL runs: a gate on the statement, a locked connection, and processes with limits around both.

Worker processes import nothing from outside this package and `formats`: they start quickly and hold little.
"""
