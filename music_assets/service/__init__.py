"""The query service: SQL and ready-made queries over HTTP on the newest published snapshot, read-only.

`app` assembles the service, `routes` contains the endpoints, `sandbox` runs the SQL in processes of its own, and
`query_command` implements `music-assets query`. Publishing snapshots belongs to `storage`, training vectors to
`embedding`.
"""
