"""The explorer: web pages for people, served next to the API on the same port.

One module for each page. It reads the request, runs ready-made queries as the API does, and renders a template.
Libraries for the browser are vendored in `static/vendor/`; `make vendor` updates them.
"""
