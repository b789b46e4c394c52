"""Embeddings of artists and users: interactions, corpus, word2vec, vectors, evaluation, neighbours, plots.

Dagster and the choice of tables belong to `defs/assets/embeddings.py`, similarity requests to `service/similarity.py`.
"""
