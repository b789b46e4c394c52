"""The sandbox for SQL from untrusted clients, in three layers: `gate` checks the statement, `database` is a locked
connection, and `limits` restricts the `worker` process around both. `pool` is their interface to the service.

A worker imports little besides this package and `formats`, so that it starts fast and needs little memory.
"""
