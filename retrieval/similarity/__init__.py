"""How alike two utterances are: SeqSim and other scores."""
