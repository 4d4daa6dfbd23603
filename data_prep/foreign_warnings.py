"""Hides warnings of other packages that a user can do nothing about."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_jieba_warnings() -> Iterator[None]:
    """Context for importing jieba, or a package that does: ``pkg_resources`` warns of its own removal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        yield


@contextmanager
def without_native_stderr() -> Iterator[None]:
    """Context that silences a C++ library which writes to standard error; exceptions are still raised."""
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
