"""YuBao (arXiv 2601.07274): the benchmark's sites, its metadata, its audio, and what of them is missing."""

SENTENCES = 50  # the same sentences, numbered from 1, were recorded at every site
