"""Sentences as sequences of concepts.

A context-free grammar writes sentences that make sense in every variety at once: the same sequence of
concepts is put into the words of each, so that sentences are parallel in meaning and word order but not
identical. Word order is that of Mandarin, which the varieties share for what is said here.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from data_prep.corpora.mini.lexicon import concepts_by_class, entries

# A rule is a list of alternatives; a symbol in capitals is a rule, one in small letters a word class if there
# is one of that name, else a concept; a question mark makes a symbol optional (one time in two).
RULES: Final[dict[str, tuple[str, ...]]] = {
    "SENTENCE": (
        "TIME? PERSON MODAL? ACT",
        "TIME? PERSON NEGATION ACT",
        "TIME? PERSON ACT",
        "PERSON TIME MODAL? ACT",
        "PERSON adverb MODAL? ACT",
        "TIME? PERSON at place ACTIVITY",
        "TIME? PERSON MODAL? GOING",
        "TIME? PERSON COMPANY together ACTIVITY",
        "TIME? PERSON COMPANY GOING",
        "PERSON have COUNTED",
        "PERSON not_have THING",
        "PAST? PERSON BOUGHT",
        "PERSON give OTHER COUNTED",
        "plural all ACT",
        "plural all very state",
        "PERSON of THING QUALITY",
        "PERSON of kin is OTHER of human",
        "DEFINITE QUALITY",
        "DEFINITE is PERSON of",
        "DEFINITE YUAN_PRICE",
        "PERSON of body DESCRIBED",
        "THING COMPARED",
        "PERSON more_than OTHER FIGURE",
        "PERSON STATE",
        "PERSON very state but STILL_ACTING",
        "because RAINING PERSON NEGATION GOING",
        "because PERSON EXCUSE we NEGATION GOING",
        "RAINING",
        "SKY",
        "day TEMPERATURE",
        "SIGHT",
        "QUESTION",
        "ANIMALS",
        "dont ACT",
        "dont at place activity",
        "PERSON know OTHER like LIKED",
        "PERSON like LIKED",
        "PERSON not like LIKED",
        "PERSON want OTHER ACT",
        "PERSON meet OTHER MOOD",
        "PERSON ask OTHER WHAT_ABOUT",
    ),
    "QUESTION": (
        "PERSON TIME? want? ASKED",
        "PERSON when MODAL? GOING",
        "PERSON how go place",
        "PERSON why NEGATION ACT",
        "PERSON at where ACTIVITY",
        "who at place ACTIVITY",
        "who MODAL? ACT",
        "who is OTHER of human",
        "PERSON of THING at where",
        "DEFINITE how_much money",
        "PERSON have how_many MEASURED", "OTHER of kin have how_many MEASURED",
        "TIME? PERSON MODAL ACT question",
        "PERSON like LIKED question",
        "DEFINITE QUALITY question",
        "day can weather question",
        "PERSON go ever place question",
        "PERSON eat ever food question",
    ),
    "ASKED": (
        "eat what", "drink what", "buy what thing", "look what book", "sing what song", "cook what vegetable",
        "seek what thing", "go where", "go where ACTIVITY",
    ),
    "WHAT_ABOUT": ("when GOING", "want eat what", "why cry", "at where study", "how go place"),
    "PERSON": ("pronoun", "pronoun", "pronoun", "kin", "human", "pronoun of kin"),
    "OTHER": ("pronoun", "kin", "human"),
    "COMPANY": ("with pronoun", "with kin", "with human"),
    "TIME": ("day", "day part_of_day", "part_of_day", "year", "now"),
    "PAST": ("past_day", "past_day part_of_day", "past_year"),
    "MODAL": ("modal", "think", "want"),
    "NEGATION": ("not", "not think", "not may", "not want", "cannot"),
    "ACT": (
        "eat food", "eat fruit", "drink beverage", "cook food", "buy goods", "wash washed", "wear worn",
        "look text", "look watched", "write written", "hear song", "hear told", "tell told", "sing sung",
        "seek lost", "take goods", "borrow lent", "open opened", "close opened", "keep animal", "wait OTHER",
        "help OTHER", "love OTHER", "fear animal", "open switched", "close switched",
        "teach OTHER write word", "activity", "motion", "help OTHER wash washed", "with OTHER borrow lent",
        "at place activity",
    ),
    "ACTIVITY": (
        "activity", "activity", "eat food", "buy goods", "drink beverage", "look text", "wash washed",
        "wait OTHER", "write written",
    ),
    "GOING": (
        "go place", "go place ACTIVITY", "come place", "come place ACTIVITY", "go buy goods",
        "go look watched", "motion",
    ),
    "MOOD": ("at place ACTIVITY", "MOODWORD"),
    "MOODWORD": ("at laugh", "at cry"),
    "BOUGHT": (
        "buy done COUNTED", "eat done COUNTED_FOOD", "drink done COUNTED_DRINK", "wash done worn",
        "look done watched", "write done written", "take done lent", "go done place",
        "keep done COUNTED_ANIMAL",
    ),
    "COUNTED": (
        "count m_ge n_ge", "count m_ben n_ben", "count m_jian n_jian", "count m_tiao n_tiao",
        "count m_zhang n_zhang", "count m_ba n_ba", "count m_liang n_liang", "count m_zhi n_zhi",
        "LARGE yuan money",
    ),
    "COUNTED_FOOD": ("count m_ge fruit", "count m_wan n_wan", "count m_ge egg", "count m_tiao fish"),
    "COUNTED_DRINK": ("count m_bei n_bei", "count m_wan soup"),
    "COUNTED_ANIMAL": ("count m_zhi n_zhi",),
    "LARGE": ("tens ten", "tens hundred", "ten"),
    "MEASURED": ("m_ge friend", "m_ge n_ge", "m_ben n_ben", "m_zhi n_zhi", "m_tiao n_tiao", "m_jian n_jian"),
    "DEFINITE": (
        "demonstrative m_ge n_ge", "demonstrative m_ben n_ben", "demonstrative m_jian n_jian",
        "demonstrative m_tiao n_tiao", "demonstrative m_zhang n_zhang", "demonstrative m_ba n_ba",
        "demonstrative m_liang n_liang",
    ),
    "YUAN_PRICE": ("LARGE yuan",),
    "THING": ("goods", "worn", "furniture", "lent", "built", "opened"),
    "LIKED": (
        "eat food", "drink beverage", "n_zhi", "look watched", "look text", "look sky", "colour of n_jian",
        "colour of flower", "dance", "swim", "OTHER",
    ),
    "QUALITY": (
        "DEGREE quality", "DEGREE price", "DEGREE tidy", "DEGREE size", "DEGREE shape", "also DEGREE price",
        "is colour of", "not tidy",
    ),
    "DEGREE": ("degree", "degree", "still not too"),
    "COMPARED": (
        "more_than THING price", "more_than THING size", "more_than THING new", "more_than THING expensive",
    ),
    "FIGURE": ("figure", "figure", "looks", "busy", "happy"),
    "DESCRIBED": ("degree size", "degree shape", "degree tidy", "degree looks", "degree cold"),
    "STATE": (
        "TIME very state", "TIME not state", "degree state", "TIME state_plain done", "degree figure",
        "also very state",
    ),
    "EXCUSE": ("state_plain done", "too tired", "very busy"),
    "STILL_ACTING": ("still at ACTIVITY", "still want ACTIVITY", "NEGATION activity"),
    "RAINING": (
        "day weather", "day part_of_day weather", "beijing weather", "day can weather", "mountain weather",
    ),
    "TEMPERATURE": ("degree temperature", "part_of_day degree temperature", "more_than day temperature"),
    "SKY": (
        "day of sky degree size", "day of sky degree looks", "day part_of_day of sky degree colour",
        "evening of moon degree white",
    ),
    "SIGHT": (
        "place have count m_ge human", "place of grown degree looks", "place of road degree shape",
        "place have n_zhi", "place of tree degree TREE_LOOK", "place have very colour of flower",
        "place of food degree taste", "PERSON cook of food degree taste",
    ),
    "TREE_LOOK": ("tall", "big", "pretty"),
    "ANIMALS": (
        "PERSON of n_zhi degree figure", "PERSON keep done COUNTED_ANIMAL",
        "demonstrative m_zhi n_zhi degree size", "demonstrative m_zhi n_zhi at sleep",
        "n_zhi more_than animal size", "n_zhi like eat food", "demonstrative m_zhi n_zhi is colour of",
        "animal like eat vegetable", "place have animal",
    ),
}  # fmt: skip

# Words that hold a sentence together and may come twice; any other concept comes once.
REPEATABLE: Final = frozenset({"of", "at", "not", "very", "go", "buy"})
# Word classes that carry the grammar of a sentence rather than its content.
GRAMMATICAL: Final = frozenset(
    {"pronoun", "particle", "measure", "degree", "modal", "demonstrative", "adverb", "count", "unit", "way"}
)


def expand(symbol: str, draw: random.Random) -> list[str]:
    """One random expansion of a symbol into concepts.

    Raises:
        KeyError: the symbol is neither a rule, nor a word class, nor a concept.
    """
    if symbol.endswith("?"):
        return expand(symbol[:-1], draw) if draw.random() < 0.5 else []
    if symbol in RULES:
        rule = draw.choice(RULES[symbol])
        return [concept for part in rule.split() for concept in expand(part, draw)]
    if choices := concepts_by_class().get(symbol):
        return [draw.choice(choices)]
    if symbol not in entries():
        raise KeyError(f"{symbol!r} is neither a rule, nor a word class, nor a concept of the lexicon")
    return [symbol]


def sentence(draw: random.Random) -> tuple[str, ...] | None:
    """One random sentence as concepts, or None if the draw made one that repeats itself."""
    concepts = expand("SENTENCE", draw)
    counts = Counter(concepts)
    if any(count > 1 and concept not in REPEATABLE for concept, count in counts.items()):
        return None
    return tuple(concepts)


@lru_cache(maxsize=1)
def function_concepts() -> frozenset[str]:
    """Concepts of a class in ``GRAMMATICAL``."""
    return frozenset(c for c, entry in entries().items() if GRAMMATICAL.intersection(entry.classes))


def content(concepts: Sequence[str]) -> frozenset[str]:
    """The content words of a sentence."""
    return frozenset(concepts) - function_concepts()


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Shared content words over those of the sentence that has fewer, 0 to 1."""
    a, b = content(first), content(second)
    return len(a & b) / max(1, min(len(a), len(b)))
