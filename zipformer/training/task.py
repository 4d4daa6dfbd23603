"""What a training learns, as the trainer sees it: a :class:`Task`.

The trainer knows batches, steps, checkpoints and processes. What is computed from a batch, and what for, is
the task's: the trainer adds up its losses and branches on nothing. Tasks lie in :mod:`zipformer.tasks`.
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
        total: () sum over the utterances of this process; carries the gradient.
        terms: how many things ``total`` is a sum over, such as encoder frames; reports show total / terms.
        weight: factor of ``total`` in the sum that is minimised at this step.
    """

    total: Tensor
    terms: float
    weight: float


@dataclass(frozen=True)
class Needs:
    """What a task needs of the data.

    Attributes:
        tokenizer: gives the tokens of the transcripts; None = utterances need no transcript.
        repeats_need_blank: drop utterances with too few frames for CTC.
        translation: field of the supervisions whose tokens batches hold as well.
        fields: further fields of the supervisions that every utterance must have.
    """

    tokenizer: TextEncoder | None = None
    repeats_need_blank: bool = False
    translation: str | None = None
    fields: Sequence[str] = ()


Rates = dict[str, dict[str, float]]  # by what is measured, by dialect ("overall" among them): per cent


class SavesItself(Protocol):
    """A module that writes its configuration and its weights."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any: ...

    def save_pretrained(self, directory: str | Path) -> None: ...


class Task(nn.Module, ABC):
    """One way of training. DistributedDataParallel wraps it, so :meth:`forward` is a step's computation.

    A subclass registers itself with :func:`register_task`. Its constructor takes the settings and the
    processes of the run, and makes the same first weights in every process.

    Attributes:
        model: the result of the training. Averages and model directories hold its weights; other parts of
            the task (a quantiser, a head for the training alone) are in checkpoints only.
        needs: what the data must have.
        fixed_settings: settings that shape the task's own weights, which a run that resumes must keep.
        validation_interval: steps between validations; 0 = there is none.
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
        """Losses of a batch. Every parameter must take part in every step, with a zero where it is idle.

        Args:
            batch: utterances of this process; the task moves them to its device.
            step: steps taken before this one.
        """

    def after_step(self, step: int) -> None:
        """Called when the optimiser has taken a step, with the number of steps taken."""

    def monitors(self) -> dict[str, float]:
        """Numbers for the log since the last report, the same in all processes; every process must ask."""
        return {}

    def validate(self, step: int, stop: Callable[[], bool]) -> Rates | None:
        """Measure the model on the validation split; None where ``stop`` said yes in any process."""
        return {}

    def parameter_groups(self) -> Iterable[Parameter]:
        """What the optimiser trains: the parameters that are not frozen."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    @abstractmethod
    def initialise(self, source: Path) -> None:
        """Take weights from a model directory (``init_from``), as far as they fit.

        Raises:
            UserError: next to nothing fits.
        """

    def write_files(self, directory: Path) -> None:
        """Write what a model directory holds beside configuration and weights, such as tokens."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory that recognition or another task can start from."""
        self.model.save_pretrained(directory)
        self.write_files(Path(directory))

    def check_resumable(self, checkpoint: Path) -> None:
        """Make sure that a checkpoint can be resumed with the data of today.

        Raises:
            UserError: it cannot.
        """

    def own_state(self) -> dict[str, Tensor]:
        """Parameters and buffers that are not the model's."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("model.")}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`own_state` gave."""
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        lacking = [name for name in missing if not name.startswith("model.")]
        assert not lacking, lacking
        assert not unexpected, unexpected

    @classmethod
    def problems(cls, config: Any) -> list[str]:
        """What is wrong with the settings of this task, each with the setting to change."""
        return []

    @classmethod
    def window_scorer(cls, end: "Checkpoint", data_dir: Path | None, world: World) -> "WindowScorer | None":
        """Scores averages of the weights on validation data; None where this task has no such score."""
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
    """Class decorator that makes a task known as ``task=NAME``, with a config class of its own."""

    def register(task_class: T) -> T:
        assert name not in registered, f"two tasks are named {name}"
        registered[name] = RegisteredTask(name, config_class, task_class)
        return task_class

    return register
