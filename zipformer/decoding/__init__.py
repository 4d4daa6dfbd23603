"""Searches, which map encoder frames to token ids."""

from zipformer.decoding.attention import attention_greedy_search
from zipformer.decoding.beam import modified_beam_search
from zipformer.decoding.greedy import ctc_greedy_search, greedy_search

__all__ = ["attention_greedy_search", "ctc_greedy_search", "greedy_search", "modified_beam_search"]
