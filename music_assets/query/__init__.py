"""The query service: SQL over HTTP."""
