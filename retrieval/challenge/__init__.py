"""Challenge sets: retrieval without queries that are easy because of sound, names or duration.

A recall on the full test set does not show whether the encoder represents meaning or only hears that two
dialects pronounce a sentence alike. Following the challenge sets of Shim et al. (arXiv 2505.19606), three
things are removed, each in a set of its own and all together:

* right answers that sound like the query (:mod:`retrieval.challenge.distances`);
* sentences with proper nouns and numbers (:mod:`retrieval.challenge.taggers`);
* rivals that differ in duration (:meth:`retrieval.protocol.challenge_sets.ChallengeSet.allowed`).

Smaller pools are easier. Therefore each set has a random counterpart with pools of the same sizes: the effect
of a removal is the difference from this counterpart, not from the full set.
"""

from retrieval.protocol.challenge_sets import ChallengeSet, read_challenge

__all__ = ["ChallengeSet", "read_challenge"]
