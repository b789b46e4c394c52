"""The Delta tables, the drops, and the published snapshot: everything that touches storage."""
