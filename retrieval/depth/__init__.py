"""Analysis of an encoder layer by layer, by retrieval, early exits and linear probes."""
