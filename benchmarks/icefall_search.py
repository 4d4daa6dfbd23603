"""icefall's transducer searches, from a local checkout of icefall.

Only ``modified_beam_search`` and ``greedy_search_batch`` are called. From k2 they need only the rows of a
ragged tensor with two axes; a stand-in replaces it by slices of a plain tensor. The other imports of
icefall's file (language models, lattices) are never used, so empty stand-ins replace them.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from zipformer.data.tokenizer import BLANK
from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor

FILE = Path("egs") / "librispeech" / "ASR" / "pruned_transducer_stateless2" / "beam_search.py"


def import_searches(checkout: Path) -> ModuleType:
    """icefall's file of searches.

    Raises:
        FileNotFoundError: the folder is not an icefall checkout.
    """
    file = checkout / FILE
    if not file.is_file():
        raise FileNotFoundError(f"no icefall checkout at {checkout}: {FILE} is missing")
    stand_ins = {name: _AnyName(name) for name in ("k2", "icefall", "kaldifst")}
    for name in ("decode", "lm_wrapper", "rnn_lm.model", "transformer_lm.model", "utils"):
        stand_ins[f"icefall.{name}"] = _AnyName(name)
    ragged = SimpleNamespace(create_ragged_shape2=RaggedShape)
    vars(stand_ins["k2"]).update(ragged=ragged, RaggedShape=RaggedShape, RaggedTensor=RaggedTensor)
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        spec = importlib.util.spec_from_file_location("icefall_searches", file)
        assert spec is not None and spec.loader is not None  # noqa: PT018
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, previous in before.items():
            if previous is None:
                del sys.modules[name]
            else:
                sys.modules[name] = previous
    return module


class IcefallHeads(nn.Module):
    """A predictor and a joiner with the attribute names that icefall's searches use."""

    def __init__(self, predictor: Predictor, joiner: Joiner) -> None:
        super().__init__()
        self.decoder = _Decoder(predictor)
        self.joiner = _Joiner(joiner)


class _Decoder(nn.Module):
    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor
        self.blank_id, self.context_size = BLANK, predictor.context_size

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        return self.predictor(y, pad=need_pad)


class _Joiner(nn.Module):
    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.joiner = joiner
        self.encoder_proj, self.decoder_proj = joiner.encoder_proj, joiner.decoder_proj

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        return self.joiner(encoder_out, decoder_out, project=project_input)


class RaggedShape:
    """Rows of several lengths; only axis 1 is supported."""

    def __init__(self, row_splits: Tensor, cached_tot_size: int) -> None:
        self._row_splits = row_splits

    def to(self, device: torch.device) -> "RaggedShape":
        return RaggedShape(self._row_splits.to(device), 0)

    def row_splits(self, axis: int) -> Tensor:
        return self._row_splits

    def row_ids(self, axis: int) -> Tensor:
        lengths = self._row_splits.diff()
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)


class RaggedTensor:
    """Values (total,), divided into rows."""

    def __init__(self, shape: RaggedShape, value: Tensor) -> None:
        self._rows = value.split(shape.row_splits(1).diff().tolist())

    def __getitem__(self, row: int) -> Tensor:
        return self._rows[row]


class _AnyName(ModuleType):
    """A module of which every name can be imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # which makes it a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})
