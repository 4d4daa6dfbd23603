"""Speech to embeddings on disk: the interface of embedders, those there are, and the store."""
