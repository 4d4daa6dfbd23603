"""The processes of one training run: a single process, or those that torchrun started."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zipformer.device import HostCopy, choose_device, upload


@dataclass(frozen=True)
class World:
    """Rank of this process among all processes of the run, and its device."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> "World":
        """Join the process group that torchrun describes in the environment, if any.

        Args:
            device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one. Processes of one machine take
                its CUDA devices in order.
        """
        chosen = choose_device(device)
        if chosen == torch.device("cuda"):
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if "RANK" not in os.environ:
            return cls(0, 1, chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), chosen)

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class Agreement:
    """Exchanges numbers between processes, so that all get the largest ones, without waiting.

    Numbers passed in at one step are sent while the next step runs, and read at its end.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._sent: tuple[Tensor, dist.Work] | HostCopy | None = None

    def exchange(self, values: Sequence[int]) -> list[int]:
        """Pass in values, and get the largest values of all processes at the previous call.

        The first call returns zeros. A single process gets its own values.
        """
        if self.world.size == 1:
            return list(values)
        agreed = self._receive()
        tensor = upload(torch.tensor(values, dtype=torch.int64), self.world.device)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True)
        assert work is not None
        if tensor.is_cuda:
            work.wait()  # makes the stream wait, not the host
            self._sent = HostCopy(tensor)
        else:
            self._sent = tensor, work
        return agreed or [0] * len(values)

    def _receive(self) -> list[int]:
        if self._sent is None:
            return []
        if isinstance(self._sent, HostCopy):
            return self._sent.read()
        tensor, work = self._sent
        work.wait()
        return tensor.tolist()

    def finish(self) -> None:
        """Wait for pending exchanges; every process must have called ``exchange`` equally often."""
        self._receive()
        self._sent = None
