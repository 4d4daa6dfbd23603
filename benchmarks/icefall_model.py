"""icefall's Zipformer with CTC and attention decoder, from a local checkout of icefall.

icefall imports k2 for its Swoosh functions. If k2 is not installed, a stand-in with the same functions in
plain PyTorch replaces it: one fused kernel for each pass where PyTorch has one, and a derivative stored in
eight bits for backward, as in k2 (without k2's random rounding, which would only cost time here).
"""

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zipformer.data.tokenizer import BLANK, SOS_EOS
from zipformer.model_config import AsrModelConfig

RECIPE = Path("egs") / "librispeech" / "ASR" / "zipformer"
_SLOPE = 0.08
_DERIVATIVE_STEP = 1.005 / 255.0
_IGNORED = -1


class IcefallModel(nn.Module):
    """The model that icefall trains with ``--use-transducer 0 --use-ctc 1 --use-attention-decoder 1``.

    Args:
        checkout: folder of the icefall repository.
        config: model sizes. Front-end kernels and ratios are fixed by icefall's recipe.
    """

    def __init__(self, checkout: Path, config: AsrModelConfig) -> None:
        super().__init__()
        recipe = import_recipe(checkout)
        schedule = recipe["scaling"].ScheduledFloat
        encoder, decoder = config.encoder, config.attention_decoder
        first, second, third = encoder.frontend_channels
        self.pad_mask = recipe["icefall.utils"].make_pad_mask
        self.encoder_embed = recipe["subsampling"].Conv2dSubsampling(
            in_channels=config.feature_dim,
            out_channels=encoder.encoder_dim[0],
            layer1_channels=first,
            layer2_channels=second,
            layer3_channels=third,
            dropout=schedule((0.0, encoder.initial_dropout), (20000.0, encoder.final_dropout)),
        )
        self.encoder = recipe["zipformer"].Zipformer2(
            output_downsampling_factor=2,
            downsampling_factor=tuple(encoder.downsampling_factor),
            num_encoder_layers=tuple(encoder.num_encoder_layers),
            encoder_dim=tuple(encoder.encoder_dim),
            encoder_unmasked_dim=tuple(encoder.encoder_unmasked_dim),
            query_head_dim=tuple(encoder.query_head_dim),
            pos_head_dim=tuple(encoder.pos_head_dim),
            value_head_dim=tuple(encoder.value_head_dim),
            pos_dim=encoder.pos_dim,
            num_heads=tuple(encoder.num_heads),
            feedforward_dim=tuple(encoder.feedforward_dim),
            cnn_module_kernel=tuple(encoder.cnn_module_kernel),
            dropout=schedule((0.0, encoder.initial_dropout), (20000.0, encoder.final_dropout)),
            warmup_batches=encoder.warmup_batches,
        )
        self.ctc_output = nn.Sequential(
            nn.Dropout(p=0.1), nn.Linear(encoder.output_dim, config.vocab_size), nn.LogSoftmax(dim=-1)
        )
        self.attention_decoder: nn.Module | None = None
        if decoder.num_layers:
            self.attention_decoder = recipe["attention_decoder"].AttentionDecoderModel(
                vocab_size=config.vocab_size,
                decoder_dim=decoder.dim,
                num_decoder_layers=decoder.num_layers,
                attention_dim=decoder.attention_dim,
                num_heads=decoder.num_heads,
                feedforward_dim=decoder.feedforward_dim,
                memory_dim=encoder.output_dim,
                label_smoothing=decoder.label_smoothing,
            )
        self._optimizer_class = recipe["optim"].ScaledAdam

    def set_batch_count(self, batch: float) -> None:
        """Set the batch count that every schedule reads, as icefall's training loop does."""
        for name, module in self.named_modules():
            if hasattr(module, "batch_count"):
                module.batch_count = batch
            if hasattr(module, "name"):
                module.name = name

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """icefall's ScaledAdam with gradient clipping, over all parameters."""
        groups = [{"named_params": list(self.named_parameters()), "lr": lr}]
        return self._optimizer_class(groups, lr=lr, clipping_scale=2.0)

    def forward(self, features: Tensor, lengths: Tensor, tokens: list[list[int]]) -> dict[str, Tensor]:
        """Losses ``ctc`` and ``attention``, summed over the batch."""
        x, lengths = self.encoder_embed(features, lengths)
        frames, lengths = self.encoder(x.permute(1, 0, 2), lengths, self.pad_mask(lengths))
        frames = frames.permute(1, 0, 2)  # (N, T', C)
        losses = {
            "ctc": F.ctc_loss(
                self.ctc_output(frames).permute(1, 0, 2),
                torch.cat([torch.tensor(utterance) for utterance in tokens]),
                lengths.cpu(),
                torch.tensor([len(utterance) for utterance in tokens]),
                blank=BLANK,
                reduction="sum",
            )
        }
        if self.attention_decoder is not None:
            decoder: Any = self.attention_decoder  # a class of icefall
            inputs = [torch.tensor([SOS_EOS, *utterance]) for utterance in tokens]
            targets = [torch.tensor([*utterance, SOS_EOS]) for utterance in tokens]
            logits = decoder.decoder(
                x=pad_sequence(inputs, batch_first=True, padding_value=SOS_EOS).to(frames.device),
                x_lens=torch.tensor([len(row) for row in inputs], device=frames.device),
                memory=frames,
                memory_lens=lengths,
            )
            losses["attention"] = decoder.loss_fun(
                x=logits,
                target=pad_sequence(targets, batch_first=True, padding_value=_IGNORED).to(frames.device),
            )
        return losses


def import_recipe(checkout: Path) -> dict[str, ModuleType]:
    """Modules of icefall's Zipformer recipe.

    Raises:
        FileNotFoundError: the folder is not an icefall checkout.
    """
    recipe = checkout / RECIPE
    if not (recipe / "zipformer.py").is_file():
        raise FileNotFoundError(f"{recipe} has no zipformer.py; give the folder of an icefall checkout")
    if importlib.util.find_spec("k2") is None:
        sys.modules["k2"] = _K2("k2")
        sys.modules["k2.version"] = _K2("k2.version")
    # The package without its __init__, which imports decoders that need all of k2.
    package = ModuleType("icefall")
    package.__path__ = [str(checkout / "icefall")]
    sys.modules["icefall"] = package
    # Links of the recipe to its neighbours may be missing in a partial checkout.
    sys.path += [str(recipe), str(recipe.parent / "transducer_stateless")]
    names = ("icefall.utils", "scaling", "subsampling", "attention_decoder", "optim")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        modules = {name: importlib.import_module(name) for name in names}
        # icefall's module has the same name as this package.
        spec = importlib.util.spec_from_file_location("icefall_zipformer", recipe / "zipformer.py")
        assert spec is not None
        assert spec.loader is not None
        modules["zipformer"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules["zipformer"])
    return modules


def _swoosh(x: Tensor, offset: float, shift: float) -> Tensor:
    return F.softplus(x - offset).add_(x, alpha=-_SLOPE).sub_(shift)


class _SwooshFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: float, shift: float) -> Tensor:
        derivative = torch.sigmoid(x - offset).mul_(1.0 / _DERIVATIVE_STEP).add_(0.5)
        ctx.save_for_backward(derivative.to(torch.uint8))
        return _swoosh(x, offset, shift)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return derivative.to(grads[0].dtype).mul_(_DERIVATIVE_STEP).sub_(_SLOPE).mul_(grads[0]), None, None


class _K2(ModuleType):
    """The functions of k2 that the recipe calls; any other name is a class that only annotations mention."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        constants = {"swoosh_l": (4.0, 0.035), "swoosh_r": (1.0, 0.313261687)}.get(name[:8])
        if constants is None:
            return object
        if name.endswith("_forward_and_deriv"):
            return lambda x: (_swoosh(x, *constants), torch.sigmoid(x - constants[0]).sub_(_SLOPE))
        if name.endswith("_forward"):
            return lambda x: _swoosh(x, *constants)
        return lambda x: _SwooshFunction.apply(x, *constants)
