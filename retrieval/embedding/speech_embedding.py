"""Google's ``speech_embedding``: a small published speech encoder whose weights come with a package.

It is a convolutional network that was trained to spot English keywords and maps 0.78 s of speech to 96 values
(Lin, Kilgour, Roblek and Sharifi, "Training Keyword Spotters with Limited and Synthesized Speech Data", arXiv
2002.01322). The package ``openwakeword`` 0.4.0 contains it as two ONNX files. Only these files are read; the
Python code of the package is not imported. Google published the model under Apache-2.0; the package licenses
all its models under CC BY-NC-SA 4.0, which excludes commercial use.

Audio of 16 kHz passes through

1. ``melspectrogram.onnx``: samples (1,T), scaled like 16-bit integers, to decibels of 32 mel bands
   (1,1,M,32), M = (T - 512) // 160 + 1. Values more than 80 dB below the loudest band of the whole input are
   raised to that level, so the input is one utterance, never a batch.
2. x / 10 + 2, which scales decibels to the input range of the network.
3. ``embedding_model.onnx``: windows of 76 frames, 8 frames apart, (N,76,32,1) to (N,1,1,96).
"""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from retrieval.embedding.embedder import Embedder, EmbedderKind
from zipformer.errors import UserError

FILES = ("melspectrogram.onnx", "embedding_model.onnx")
INSTALL = "pip install 'fangyan[speech-embedding]'"

FULL_SCALE = 32768.0
MEL_SHIFT, MEL_WINDOW, MEL_BANDS = 160, 512, 32  # samples, samples, bands
WINDOW, STEP = 76, 8  # mel frames in the window of an embedding, and from one embedding to the next
STEP_SAMPLES = STEP * MEL_SHIFT  # 80 ms
WINDOW_SAMPLES = (WINDOW - 1) * MEL_SHIFT + MEL_WINDOW
SILENCE_BEFORE = (WINDOW_SAMPLES - STEP_SAMPLES) // 2
AT_ONCE = 64  # windows that pass through the network together


class SpeechEmbeddingEmbedder(Embedder):
    """One embedding of 96 values for every started 80 ms of an utterance, T' = ceil(samples / 1280).

    Silence is added before and after the utterance, so that the window of each embedding is centred on its 80
    ms. Utterances are embedded one by one, on the CPU.

    Args:
        melspectrogram, network: the files named in :data:`FILES`.

    Raises:
        UserError: ``onnxruntime`` is not installed.
    """

    name = EmbedderKind.speech_embedding.value
    dimension = 96
    sampling_rate = 16000

    def __init__(self, melspectrogram: Path, network: Path) -> None:
        self.melspectrogram = _session(melspectrogram)
        self.network = _session(network)

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`."""
        audio = zip(batch, lengths.tolist(), strict=True)
        return [self._frames(row[:length].numpy()) for row, length in audio]

    def _frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (T',96) of an utterance (T,)."""
        count = -(-len(samples) // STEP_SAMPLES)
        padded: NDArray[np.float32] = np.zeros((count - 1) * STEP_SAMPLES + WINDOW_SAMPLES, dtype=np.float32)
        padded[SILENCE_BEFORE : SILENCE_BEFORE + len(samples)] = samples * FULL_SCALE
        (decibels,) = self.melspectrogram.run(None, {"input": padded[None]})  # (1,1,M,32)
        mel = decibels.reshape(-1, MEL_BANDS) / 10 + 2  # (M,32), M = 8 (T' - 1) + 76
        windows = sliding_window_view(mel, WINDOW, axis=0)[::STEP].swapaxes(1, 2)[..., None]  # (T',76,32,1)
        outputs = [
            self.network.run(None, {"input_1": windows[first : first + AT_ONCE]})[0]
            for first in range(0, count, AT_ONCE)
        ]
        embeddings: NDArray[np.float32] = np.concatenate(outputs).reshape(count, self.dimension)
        return embeddings


def load() -> tuple[SpeechEmbeddingEmbedder, list[Path]]:
    """The embedder and the files of its weights.

    Raises:
        UserError: ``openwakeword`` is not installed, or the installed version lacks the weights.
    """
    found = find_spec("openwakeword")
    if found is None or found.origin is None:
        raise UserError(f"embedder=speech_embedding needs openwakeword, which is not installed: {INSTALL}")
    folder = Path(found.origin).parent / "resources" / "models"
    files = [folder / name for name in FILES]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"the installed openwakeword has no {' and no '.join(missing)} in {folder}: version 0.4.0 comes"
            f" with the weights, versions since 0.6 do not: {INSTALL}"
        )
    return SpeechEmbeddingEmbedder(*files), files


def _session(path: Path) -> Any:
    """Load the network of an ONNX file, with as many threads as torch has."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UserError(
            f"embedder=speech_embedding needs onnxruntime, which is not installed: {INSTALL}"
        ) from error
    module: ModuleType = onnxruntime
    return module
