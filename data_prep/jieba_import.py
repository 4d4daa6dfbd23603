"""jieba imports ``pkg_resources``, which warns on each import that it will be removed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_jieba_warnings() -> Iterator[None]:
    """Import jieba, or a package that imports it, within this block to keep the warning off the terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        yield
