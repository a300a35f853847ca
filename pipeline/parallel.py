"""Several processes that share one run: who does what, and the few sums that they exchange.

`Group()` is one process alone, for which every method is trivial, so that code which shares its
work reads the same for one process and for many. torchrun, or a stage whose profile asks for
several processes, says in environment variables which group a process belongs to. Nothing but
tensors is exchanged: no pickled object crosses from one process to another.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# One process may compute for long while another waits for it. A process that died is noticed all
# the same: Gloo sees its connections close, and whoever started the group ends the others.
PATIENCE = timedelta(days=1)
AGAIN = "Running the same command again goes on from the last saved state."

T = TypeVar("T")
_numbers = count()


class PeerLost(UserError):
    """Another process of the group ended in the middle of the run."""


@dataclass(frozen=True)
class Group:
    """`size` processes, of which this one is number `rank`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes what all found."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `size`-th item; each item is one process's. Put heavy items first."""
        return list(items[self.rank :: self.size])

    def span(self, count: int) -> slice:
        """This process's part of range(count); lengths differ by one at most, and may be 0."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum_(self, tensor: "Tensor") -> "Tensor":
        """Replace a tensor of numbers by its sum over all processes, the same bits in each.

        All must call it, in the same order. Raises `PeerLost` where one of them ended instead.
        """
        if self.size > 1:
            import torch.distributed as dist

            with _peers():
                dist.all_reduce(tensor)
        return tensor

    def agree(self, flag: bool) -> bool:
        """What the first process says, for everyone; raises `PeerLost`."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.sum_(torch.tensor(int(flag and self.first))))

    def barrier(self) -> None:
        """Wait until all processes are here; raises `PeerLost`."""
        self.agree(True)


ALONE = Group()


def launched() -> bool:
    """Whether torchrun, or a stage, started this process as one of a group."""
    return all(name in os.environ for name in VARIABLES)


def launched_group() -> Group:
    """The group that the environment variables describe, or one process alone."""
    if not launched():
        return Group()
    return Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def local_rank() -> int:
    """This process's number among those of its machine, and the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


@contextmanager
def connected(group: Group, device: "torch.device") -> Iterator[None]:
    """The block may exchange sums: Gloo for tensors in memory, NCCL for those on GPUs.

    Leaving the block, a process waits for the others: one that ended early would look lost.
    """
    if group.size == 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _peers():
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        # A name of its own: a second group of one process would find the addresses of the first.
        store = dist.PrefixStore(f"group-{next(_numbers)}", store)
        dist.init_process_group(
            backend, store=store, rank=group.rank, world_size=group.size, timeout=PATIENCE
        )
    yield
    group.barrier()
    dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Turn what PyTorch raises for a broken connection into `PeerLost`."""
    try:
        yield
    except RuntimeError as error:
        # "[file.cc:561] Connection closed by peer [127.0.0.1]:56716. This is typically ..."
        reason = re.sub(r"^\[[^]]*\] ", "", f"{error}\n".splitlines()[0]).split(". ")[0]
        raise PeerLost(
            f"Another process of this run ended or cannot be reached ({reason[:200]}). {AGAIN}"
        ) from error
