"""A task of one file: the mean level of an utterance, predicted from its first frame."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zipformer.data.batches import Batch
from zipformer.distributed import World
from zipformer.files import write_tensors
from zipformer.layers.schedule import Clock
from zipformer.model_dir import WEIGHTS_FILE
from zipformer.training.config import TrainConfig
from zipformer.training.state import seed_everything
from zipformer.training.task import Loss, Needs, Task, register_task


@dataclass
class ToyConfig(TrainConfig):
    task: str = "toy"


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.output = nn.Linear(80, 1)

    def save_pretrained(self, directory: str | Path) -> None:
        write_tensors(self.state_dict(), Path(directory) / WEIGHTS_FILE)


@register_task("toy", ToyConfig)
class Toy(Task):
    """Trains the model and one number of its own, which scales the prediction."""

    model: ToyModel
    needs = Needs()

    def __init__(self, config: ToyConfig, world: World) -> None:
        super().__init__()
        seed_everything(config.seed)
        self.model = ToyModel()
        self.scale = nn.Parameter(torch.ones(2, 1))
        self.register_buffer("steps", torch.tensor(0))
        self.rank = world.rank

    @property
    def clock(self) -> Clock:
        return self.model.clock

    def forward(self, batch: Batch, step: int) -> dict[str, Loss]:
        predicted = self.model.output(batch.features[:, 0] / 20).squeeze(1) * self.scale.sum()
        wanted = torch.stack([batch.features[n, :length].mean() for n, length in enumerate(batch.lengths)])
        count = float(len(batch.ids))
        return {
            "level": Loss((predicted - wanted).abs().sum(), count, 1.0),
            "size": Loss(self.scale.square().sum() * count, count, 0.1),
        }

    def after_step(self, step: int) -> None:
        assert isinstance(self.steps, Tensor)
        self.steps += 1
        assert int(self.steps) == step

    def monitors(self) -> dict[str, float]:
        return {"scale": self.scale.sum().item()}

    def initialise(self, source: Path) -> None:
        raise AssertionError(source)
