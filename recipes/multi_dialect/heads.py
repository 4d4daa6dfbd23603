"""Print one decoding method for each head of a model that writes transcripts, of ctc, beam and attention.

python recipes/multi_dialect/heads.py MODEL_DIR
"""

import sys
from pathlib import Path

from zipformer.errors import UserError
from zipformer.model_config import read_config

METHODS = {"ctc": "ctc", "transducer": "beam", "attention_decoder": "attention"}  # by head

if __name__ == "__main__":
    try:
        present = read_config(Path(sys.argv[1])).head_settings()
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(method for head, method in METHODS.items() if head in present))
