"""Starts a model from the weights of another one, as far as they fit."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import load_file

from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError
from zipformer.heads import heads
from zipformer.model import AsrModel
from zipformer.model_config import read_config
from zipformer.model_dir import WEIGHTS_FILE

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.01  # least share of the encoder's parameters that must fit


@dataclass
class Transfer:
    """Names of all tensors, by what happened to them."""

    loaded: list[str] = field(default_factory=list)
    by_token: list[str] = field(default_factory=list)  # loaded for the tokens that both vocabularies have
    not_loaded: list[str] = field(default_factory=list)  # with the reason; these keep their random start
    unused: list[str] = field(default_factory=list)  # only in the source
    shared_tokens: int = 0

    def report(self, source: Path) -> None:
        """Log the loaded tensors and those not loaded, each in one line."""
        logger.info("Initialised from %s: %d tensors loaded", source, len(self.loaded))
        if self.by_token:
            logger.info(
                "Another vocabulary: rows of the %d common tokens loaded in %s",
                self.shared_tokens,
                ", ".join(self.by_token),
            )
        if self.not_loaded:
            logger.warning(
                "%d tensors not loaded, they start at random: %s",
                len(self.not_loaded),
                _by_module(self.not_loaded),
            )
        if self.unused:
            logger.warning("%d tensors of %s not used: %s", len(self.unused), source, _by_module(self.unused))


@torch.no_grad()
def initialise_from(model: AsrModel, source: Path, tokenizer: Tokenizer | None) -> Transfer:
    """Copy the weights of a model directory into ``model`` wherever name and shape agree.

    If the two have different tokens, a parameter with one row for each token gets the rows of the tokens that
    both have, matched by text: even in vocabularies of equal size, equal row numbers mean different
    characters.

    Args:
        source: model directory with model.safetensors, and tokens.model unless it has no heads.
        tokenizer: tokenizer of ``model``; None if ``model`` has no heads.
        Raises:
        UserError: a file of the source is missing, or almost nothing of the encoder fits, as with a model of
            another size.
    """
    if not (source / WEIGHTS_FILE).is_file():
        raise UserError(f"init_from={source} has no {WEIGHTS_FILE}: give a model directory")
    given = load_file(source / WEIGHTS_FILE)
    by_token = vocabulary_modules()
    has_tokens = any(name.startswith(by_token) for name in given)
    old_pieces = Tokenizer.load(source).pieces if has_tokens else []
    new_pieces = tokenizer.pieces if tokenizer else []
    old = {piece: row for row, piece in enumerate(old_pieces)}
    common = [(row, old[piece]) for row, piece in enumerate(new_pieces) if piece in old]
    new_rows, old_rows = torch.tensor(common, dtype=torch.int64).view(-1, 2).T

    transfer = Transfer(shared_tokens=len(common))
    for name, target in model.state_dict().items():  # these share memory with the model's own
        tensor = given.pop(name, None)
        if tensor is None:
            transfer.not_loaded.append(f"{name} (not in the source)")
        elif name.startswith(by_token) and old_pieces != new_pieces and tensor.shape[1:] == target.shape[1:]:
            target[new_rows] = tensor[old_rows].to(target)
            transfer.by_token.append(name)
        elif tensor.shape != target.shape:
            transfer.not_loaded.append(f"{name} ({tuple(tensor.shape)} there, {tuple(target.shape)} here)")
        else:
            target.copy_(tensor)
            transfer.loaded.append(name)
    transfer.unused = sorted(given)
    _check_encoder(model, source, transfer)
    return transfer


def vocabulary_modules() -> tuple[str, ...]:
    """Prefixes of the names of all parameters with one row for every token."""
    return tuple(
        f"heads.{name}.{module}."
        for name, head in heads().items()
        for module in head.head_class.vocabulary_modules
    )


def _check_encoder(model: AsrModel, source: Path, transfer: Transfer) -> None:
    """Raise UserError with the sizes of both if less than ``LEAST_SHARE`` of the encoder was loaded.

    Some small tensors fit between any two sizes, so it is not enough that some were loaded.
    """
    sizes = {name: p.numel() for name, p in model.named_parameters() if name.startswith("encoder.")}
    loaded = sum(sizes.get(name, 0) for name in transfer.loaded)
    if not sizes or loaded >= LEAST_SHARE * sum(sizes.values()):
        return
    ours, theirs = model.config.encoder, read_config(source).encoder
    different = [
        f"encoder.{item.name} {getattr(theirs, item.name)} there, {getattr(ours, item.name)} here"
        for item in fields(ours)
        if getattr(theirs, item.name) != getattr(ours, item.name)
    ]
    raise UserError(
        f"init_from={source} is a model of another size: of the {sum(sizes.values()):,} parameters of the "
        f"encoder it fits {loaded:,}; choose the same model=, or leave init_from out ({'; '.join(different)})"
    )


def _by_module(lines: Iterable[str]) -> str:
    """Number of tensors of each module, and its first tensor with the reason."""
    modules: dict[str, list[str]] = {}
    for line in lines:
        names = line.partition(" ")[0].split(".")
        module = ".".join(names[:2] if names[0] == "heads" else names[:1])
        modules.setdefault(module, []).append(line)
    return "; ".join(
        found[0] if len(found) == 1 else f"{len(found)} of {module}, the first {found[0]}"
        for module, found in modules.items()
    )
