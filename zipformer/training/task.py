"""The interface between the trainer and a training task, :class:`Task`.

The trainer handles batches, steps, checkpoints and processes. The task computes losses from a batch; the
trainer sums them and does not depend on the kind of task. Tasks are in :mod:`zipformer.tasks`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn
from torch.nn import Parameter

from zipformer.data.batches import Batch
from zipformer.data.selection import TextEncoder
from zipformer.distributed import World
from zipformer.layers.schedule import Clock

if TYPE_CHECKING:
    from zipformer.training.averaging_window import WindowScorer
    from zipformer.training.checkpoint import Checkpoint


class Loss(NamedTuple):
    """One loss of one step.

    Attributes:
        total: scalar sum over the utterances of this process, with gradient.
        terms: number of terms in ``total``, such as encoder frames; reports show total / terms.
        weight: weight of ``total`` in the sum that is minimised at this step.
    """

    total: Tensor
    terms: float
    weight: float


@dataclass(frozen=True)
class Needs:
    """Requirements of a task for the data.

    Attributes:
        tokenizer: tokenizer of the transcripts; None = utterances need no transcript.
        repeats_need_blank: drop utterances with too few frames for CTC.
        translation: field of the supervisions with the translation, whose tokens are also in batches.
        fields: further fields of the supervisions that every utterance must have.
    """

    tokenizer: TextEncoder | None = None
    repeats_need_blank: bool = False
    translation: str | None = None
    fields: Sequence[str] = ()


Rates = dict[str, dict[str, float]]  # per cent, by name of the rate and dialect (or "overall")


class SavesItself(Protocol):
    """A module that writes its configuration and its weights."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any: ...

    def save_pretrained(self, directory: str | Path) -> None: ...


class Task(nn.Module, ABC):
    """A training task. DistributedDataParallel wraps it, so :meth:`forward` is the computation of a step.

    A subclass is registered with :func:`register_task`. Its constructor takes the settings and the processes
    of the run, and makes the same initial weights in every process.

    Attributes:
        model: result of the training. Averages and model directories have its weights; other parts of the
            task (a quantiser, a head used only in training) are in checkpoints only.
        needs: requirements for the data.
        fixed_settings: settings that determine the shapes of weights outside ``model``; they must not change
            when a run is resumed.
        validation_interval: steps between validations; 0 = no validation.
    """

    model: SavesItself
    needs: Needs
    fixed_settings: Sequence[str] = ()
    validation_interval: int = 0

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """The clock that drives the schedules of the model."""

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> dict[str, Loss]:
        """Losses of a batch. Every parameter must get a gradient in every step, zero if it is not used.

        Args:
            batch: utterances of this process; the task moves them to its device.
            step: number of steps before this one.
        """

    def after_step(self, step: int) -> None:
        """Called after every step of the optimiser, with the number of steps so far."""

    def monitors(self) -> dict[str, float]:
        """Numbers for the log since the last report, equal in all processes; every process must call this."""
        return {}

    def validate(self, step: int, stop: Callable[[], bool]) -> Rates | None:
        """Measure the model on the validation split; None if ``stop`` returned True in any process."""
        return {}

    def parameter_groups(self) -> Iterable[Parameter]:
        """Parameters for the optimiser: all that are not frozen."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    @abstractmethod
    def initialise(self, source: Path) -> None:
        """Load weights from a model directory (``init_from``), as far as they fit.

        Raises:
            UserError: almost nothing fits.
        """

    def write_files(self, directory: Path) -> None:
        """Write the files of a model directory beside configuration and weights, such as tokens."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory, from which recognition or another task can start."""
        self.model.save_pretrained(directory)
        self.write_files(Path(directory))

    def check_resumable(self, checkpoint: Path) -> None:
        """Check that a checkpoint can be resumed with the present data.

        Raises:
            UserError: it cannot.
        """

    def own_state(self) -> dict[str, Tensor]:
        """Parameters and buffers outside ``model``."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("model.")}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and buffers from :meth:`own_state`."""
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        lacking = [name for name in missing if not name.startswith("model.")]
        assert not lacking, lacking
        assert not unexpected, unexpected

    @classmethod
    def problems(cls, config: Any) -> list[str]:
        """Problems in the settings of this task, each with the setting to change."""
        return []

    @classmethod
    def window_scorer(cls, end: "Checkpoint", data_dir: Path | None, world: World) -> "WindowScorer | None":
        """Scorer of averages of the weights on validation data; None if this task has no score."""
        return None


@dataclass(frozen=True)
class RegisteredTask:
    """A task by its name on the command line, ``task=NAME``.

    Attributes:
        config_class: dataclass of the settings, a subclass of ``TrainConfig``.
        task_class: builds the task from the settings and the world.
    """

    name: str
    config_class: type
    task_class: type[Task]


T = TypeVar("T", bound=type[Task])
registered: dict[str, RegisteredTask] = {}


def register_task(name: str, config_class: type) -> Callable[[T], T]:
    """Class decorator that registers a task as ``task=NAME``, with its config class."""

    def register(task_class: T) -> T:
        assert name not in registered, f"two tasks are named {name}"
        registered[name] = RegisteredTask(name, config_class, task_class)
        return task_class

    return register
