"""YuBao (arXiv 2601.07274): sites, metadata and audio of the benchmark, and their completeness."""

SENTENCES = 50  # the same sentences, numbered from 1, were recorded at every site
