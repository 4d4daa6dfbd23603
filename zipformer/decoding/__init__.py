"""Searches: encoder frames to token ids."""

from .attention import attention_greedy_search
from .beam import modified_beam_search
from .greedy import ctc_greedy_search, greedy_search

__all__ = ["attention_greedy_search", "ctc_greedy_search", "greedy_search", "modified_beam_search"]
