"""word2vec embeddings of artists and users: training and evaluation."""
