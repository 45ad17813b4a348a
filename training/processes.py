"""Several processes that train one network together, as `torchrun` starts them; one by itself otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from avsync_cli.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are; number 0 alone writes and shows."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, parts: int) -> range:
        """Which of so many parts are this process's."""
        return range(self.rank, parts, self.world)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace float tensors by their sums over all processes."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(total.view_as(tensor))

    def any_of(self, here: bool, device: torch.device) -> bool:
        """Whether it holds in any process."""
        counted = torch.tensor([float(here)], device=device)
        self.add_up([counted])
        return bool(counted.item())


@contextmanager
def join_processes(device: torch.device, *, parts: int, what: str) -> Iterator[Processes]:
    """Join the processes of a `torchrun` that do the `parts` of every step, called `what`. Raises
    ConfigError."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if parts % world:
        raise ConfigError(f"data: {parts} {what} cannot be shared by {world} processes")
    if world == 1:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """The device of this process; "auto" is a GPU where there is one. Raises ConfigError."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device cuda: this machine has no GPU that torch can use")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
