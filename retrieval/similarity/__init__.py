"""How alike two utterances are: SeqSim and other scores, corrections of embeddings, search in large pools."""
