"""What is measured: shapes, methods, and the plans of a full and of a quick run."""

from dataclasses import dataclass, field, replace
from typing import Any

# Classes of the tasks of the published suites of 8, 14 and 20 tasks, in their order.
CLASSES = (397, 196, 45, 10, 10, 43, 10, 47, 100, 102, 37, 10, 10, 26, 7, 10, 10, 10, 10, 2)
CLOCK = {"cpu": "cpu_s", "cuda": "wall_s"}  # which time of a sample counts on a device


@dataclass(frozen=True)
class Trunk:
    """Shapes of an image tower. The defaults are open_clip's ViT-B-32."""

    image: int = 224  # pixels, height and width
    patch: int = 32
    width: int = 768
    layers: int = 12
    head_width: int = 64
    embedding: int = 512

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return (self.image // self.patch) ** 2 + 1


VIT_B_32 = Trunk()
TWO_BLOCKS = replace(VIT_B_32, layers=2)
TRUNKS = {"vit": VIT_B_32, "two_blocks": TWO_BLOCKS}


@dataclass(frozen=True)
class Problem:
    """A merging problem with random weights, task vectors, heads and images."""

    trunk: Trunk
    tasks: int
    batch: int  # images per task
    device: str = "cpu"
    classes: tuple[int, ...] = CLASSES


@dataclass(frozen=True)
class Method:
    """An implementation of the step. `place`: module and class, built from a `Problem`."""

    title: str
    place: str
    options: dict[str, Any] = field(default_factory=dict)  # of the class
    step: dict[str, Any] = field(default_factory=dict)  # of each of its steps
    peer: bool = False  # runs in the environment of the peers
    onednn: bool = False  # its steps send float32 products to oneDNN


_OURS, _PEER = "benchmarks.ours:Ours", "benchmarks.fusion_bench_loop:FusionBenchLoop"
_AUTHORS = "benchmarks.authors:RecreatedAuthorsStep"
_BFLOAT16 = {"precision": "bfloat16"}  # of the passes; weights and task vectors stay float32
METHODS = {
    "ours": Method("This project", _OURS),
    "ours_float16": Method("This project, float16 task vectors", _OURS, {"half": True}),
    "ours_bfloat16": Method("This project, bfloat16 passes", _OURS, step=_BFLOAT16),
    "fusion_bench": Method("FusionBench", _PEER, peer=True),
    "fusion_bench_onednn": Method("FusionBench by oneDNN", _PEER, peer=True, onednn=True),
    "fusion_bench_bfloat16": Method("FusionBench, bfloat16 passes", _PEER, {}, _BFLOAT16, True),
    "authors_one": Method("Authors' step re-created, one batch", _AUTHORS, step={"batches": 1}),
    "authors": Method("Authors' step re-created, two batches", _AUTHORS, step={"batches": 2}),
}
MACHINE = Method("The machine's rates", "benchmarks.machine:Machine")
AUTHORS = ("authors_one", "authors")
# What is left out where the machine gains nothing from it. This project uses oneDNN by itself.
BFLOAT16 = ("ours_bfloat16", "fusion_bench_bfloat16")
ONEDNN = ("fusion_bench_onednn",)


@dataclass(frozen=True)
class Setting:
    """Methods timed on one problem. Those of a group are in memory together and take turns."""

    trunk: str  # of TRUNKS
    tasks: int
    batch: int  # images per task
    groups: tuple[tuple[str, ...], ...]
    rounds: int

    @property
    def problem(self) -> Problem:
        """What its methods work on."""
        return Problem(TRUNKS[self.trunk], self.tasks, self.batch)

    def without(self, methods: tuple[str, ...]) -> "Setting":
        """The same with fewer methods."""
        left = (tuple(m for m in group if m not in methods) for group in self.groups)
        return replace(self, groups=tuple(group for group in left if group))


@dataclass(frozen=True)
class Plan:
    """A run of the benchmark, and the free memory in GB (1e9 bytes) that it needs."""

    settings: tuple[Setting, ...]
    memory: tuple[tuple[str, int], ...]  # method and number of tasks, a fresh process each
    free_gb: float = 17


def _vit(tasks: int, rounds: int) -> Setting:
    ours, peer = ("ours", "ours_bfloat16"), ("fusion_bench", *ONEDNN, "fusion_bench_bfloat16")
    # The more tasks, the fewer methods fit into memory at once. The authors' step needs 20 GB with
    # 14 tasks: it is measured where it is small.
    groups = {
        2: (("ours", "fusion_bench", *AUTHORS),),
        4: (("ours", "fusion_bench"), AUTHORS),
        8: (ours + peer,),
        14: (("ours",), ("fusion_bench",)),
        20: (ours, peer),
    }
    return Setting("vit", tasks, 16, groups[tasks], rounds)


def _two_blocks(tasks: int, rounds: int) -> Setting:
    methods = ("ours", "ours_float16", "fusion_bench", *(AUTHORS if tasks <= 8 else ()))
    return Setting("two_blocks", tasks, 1, (methods,), rounds)


_MEMORY = (("ours", 8), ("ours_float16", 8), ("fusion_bench", 8), ("authors", 2), ("authors", 4))
_ROUNDS = {2: 2, 4: 2, 8: 5, 14: 2, 20: 2}
PLANS = {
    "full": Plan(
        (
            *(_two_blocks(tasks, 2) for tasks in (2, 4, 8, 14)),
            *(_vit(tasks, rounds) for tasks, rounds in _ROUNDS.items()),
        ),
        _MEMORY,
    ),
    "quick": Plan(
        (
            *(_two_blocks(tasks, 1) for tasks in (2, 8, 14)),
            _vit(8, 1),
        ),
        _MEMORY[:3],
    ),
}
# Before anything is timed, every gradient must agree with this project's in float32 on a small
# problem: to these errors, relative to its norm.
GATE = Problem(TWO_BLOCKS, tasks=3, batch=2)
TOLERANCES = {
    "ours_float16": 1e-3,
    "ours_bfloat16": 0.1,
    "fusion_bench": 1e-4,
    "fusion_bench_onednn": 1e-4,
    "fusion_bench_bfloat16": 0.1,
    "authors_one": 1e-4,
}
