"""music-assets: turns Last.fm CSV drops into ranked tables, a query service and embeddings."""
