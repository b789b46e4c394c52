"""Generated Last.fm data, and the demo that runs the project on it.

`words.toml` contains the words, `names` the artists, `bad_rows` the defects, `generator` the users and the files. What
only tests need to know about the data belongs to the tests.
"""
