"""The query service: SQL over HTTP.

`app` wires it; `routes` says what the addresses answer; `sandbox` runs the SQL, in processes apart from the service.
"""
