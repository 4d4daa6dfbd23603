"""Synthesis of the embedded corpus: text, readings, voices, rooms, and the processes that speak."""
