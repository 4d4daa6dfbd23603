"""Files that are either complete or not there (:mod:`zipformer.files`)."""

from zipformer.files import replacing, write_json

__all__ = ["replacing", "write_json"]
