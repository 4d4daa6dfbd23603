"""Layer by layer: what an encoder knows where, by retrieval, early exits and linear probes."""
