"""Miniatures of public corpora: their layouts with their oddities, filled with noise.

``MINIATURES`` has a function for each corpus. It writes the corpus to a folder and gives the settings of
``fangyan prepare`` and what must come out.
"""

from collections.abc import Callable
from pathlib import Path

from dialect_miniatures import (
    common_voice,
    fleurs,
    kespeech,
    magichub_cities,
    magichub_conversation,
    mdcc,
    wenetspeech_chuan,
    wenetspeech_yue,
)
from mandarin_miniatures import (
    aidatatang,
    aishell,
    aishell2,
    aishell3,
    magicdata,
    primewords,
    speechio,
    stcmds,
    talcs,
    thchs30,
    wenetspeech,
)
from meeting_miniatures import aishell4, alimeeting, ramc
from miniature import Miniature
from more_dialect_miniatures import ascend, hat, seame, tat, teochew_wild, wu_bench, xiangyin

MINIATURES: dict[str, Callable[[Path], Miniature]] = {
    function.__name__: function
    for function in (
        *(kespeech, common_voice, mdcc, wenetspeech, wenetspeech_yue, wenetspeech_chuan),
        *(magichub_cities, magichub_conversation, aishell, aishell2, aishell3, fleurs),
        *(thchs30, stcmds, primewords, aidatatang, magicdata, talcs, speechio, wu_bench),
        *(tat, hat, teochew_wild, xiangyin, ascend, seame, aishell4, alimeeting, ramc),
    )
}
