"""Result folders that change as a whole or not at all."""

from zipformer.files import replacing_folder as complete_files

__all__ = ["complete_files"]
