"""Challenge sets: retrieval without what is easy by sound, by name or by duration.

A recall on the full test set does not say whether the encoder knows the meaning or hears that two dialects
pronounce a sentence alike. Following the challenge sets of Shim et al. (arXiv 2505.19606), three things are
taken away, each in a set of its own and all together:

* right answers that sound like the query (:mod:`retrieval.challenge.distances`);
* sentences with proper nouns and numbers (:mod:`retrieval.challenge.taggers`);
* rivals that differ in duration (:meth:`retrieval.protocol.challenge_sets.ChallengeSet.allowed`).

Smaller pools are easier, so beside each set stands a random counterpart with pools of the same sizes: what a
removal takes away is the difference to that, not to the full set.
"""

from retrieval.protocol.challenge_sets import ChallengeSet, read_challenge

__all__ = ["ChallengeSet", "read_challenge"]
