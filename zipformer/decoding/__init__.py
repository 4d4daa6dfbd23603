"""Searches: encoder frames to token ids."""

from .beam import modified_beam_search
from .greedy import ctc_greedy_search, greedy_search

__all__ = ["ctc_greedy_search", "greedy_search", "modified_beam_search"]
