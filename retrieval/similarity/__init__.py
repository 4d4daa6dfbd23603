"""Similarity of two utterances: SeqSim and other scores."""
