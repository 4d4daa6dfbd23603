"""Computes embeddings of speech and stores them: the interface of embedders, all embedders, and the store."""
