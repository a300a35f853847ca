"""FusionBench's merges, as `benchmarks.merging` measures them.

A pool hands over models that lie in memory: nothing is read, and none is copied. Names have no dots
there, as those of a module's own parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fusion_bench import BaseModelPool
from fusion_bench.method.dare import DareTaskArithmetic
from fusion_bench.method.emr_merging.emr_merging import EMRMerging
from fusion_bench.method.emr_merging.utils import emr_merge
from fusion_bench.method.isotropic_merging.iso_utils import iso_c
from fusion_bench.method.regmean.clip_regmean import RegMeanAlgorithmForCLIP
from fusion_bench.method.task_arithmetic import TaskArithmeticAlgorithm
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import (
    compute_and_sum_svd_mem_reduction as tsv_m,
)
from fusion_bench.method.ties_merging import TiesMergingAlgorithm
from fusion_bench.method.wudi import wudi_merging
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.merging_problem import (
    COEFFICIENT,
    DROP,
    KEEP,
    SHRINK,
    STEPS,
    Call,
    Side,
    Tensors,
    everything,
    models,
    one_block,
)
from benchmarks.problem import pixels
from benchmarks.settings import Problem
from pipeline.checkpoints.hf import convert_hf_vision, export_hf_vision
from pipeline.merging.interference import LINEAR

PRETRAINED = "_pretrained_"


class Theirs(Side):
    """`method`: as for this project."""

    def __init__(self, problem: Problem, method: str) -> None:
        pretrained, experts = models(problem, one_block if method == "wudi" else everything)
        if method == "regmean":
            super().__init__(_regmean(problem, pretrained, experts))
            return
        held = {name: tensor.clone() for name, tensor in pretrained.items()}
        pool = Pool({PRETRAINED: pretrained, **experts})

        def again() -> None:  # some of their functions write to the pretrained model
            for name, tensor in pretrained.items():
                tensor.copy_(held[name])

        def of_model(model: nn.Module) -> Tensors:
            found = {name.replace("/", "."): t for name, t in model.state_dict().items()}
            return {name: tensor - held[name] for name, tensor in found.items()}

        change = of_model if method in ALGORITHMS else _of_vector
        run = ALGORITHMS.get(method) or VECTORS[method]
        super().__init__(Call(lambda: run(pool), change, again))


class Weights(nn.Module):
    """A model of nothing but parameters."""

    def __init__(self, weights: Tensors) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(tensor))


class Pool(BaseModelPool):
    """Models in memory; each is wrapped anew, so that none is changed but for the pretrained."""

    def __init__(self, weights: dict[str, Tensors]) -> None:
        self._weights = weights

    @property
    def model_names(self) -> list[str]:
        return [name for name in self._weights if name != PRETRAINED]

    def load_model(self, name: str, *args: Any, **options: Any) -> nn.Module:
        return Weights(self._weights[name])

    def load_pretrained_model(self, *args: Any, **options: Any) -> nn.Module:
        return self.load_model(PRETRAINED)


def _task_vectors(pool: Pool) -> list[Tensors]:
    return EMRMerging().load_pretrained_model_and_task_vectors(pool)[1]


def _of_vector(found: Any) -> Tensors:
    vector = found[0] if isinstance(found, tuple) else found
    return {name.replace("/", "."): tensor for name, tensor in vector.items()}


ALGORITHMS: dict[str, Callable[[Pool], nn.Module]] = {
    "task_arithmetic": lambda pool: TaskArithmeticAlgorithm(scaling_factor=COEFFICIENT).run(pool),
    "ties": lambda pool: TiesMergingAlgorithm(
        scaling_factor=COEFFICIENT, threshold=KEEP, remove_keys=[], merge_func="sum"
    ).run(pool),
    "dare": lambda pool: DareTaskArithmetic(
        scaling_factor=COEFFICIENT, sparsity_ratio=DROP, only_on_linear_weights=False
    ).run(pool),
}
VECTORS: dict[str, Callable[[Pool], Any]] = {
    "emr": lambda pool: emr_merge(_task_vectors(pool)),
    "tsv_m": lambda pool: tsv_m(_task_vectors(pool), None, "cpu"),
    "iso_c": lambda pool: iso_c(_task_vectors(pool), "cpu"),
    "wudi": lambda pool: wudi_merging(_task_vectors(pool), "cpu", STEPS),
}


def _regmean(problem: Problem, pretrained: Tensors, experts: dict[str, Tensors]) -> Call:
    towers = {task: _tower(problem, weights) for task, weights in experts.items()}
    start, batches = _tower(problem, pretrained), dict(zip(experts, pixels(problem), strict=True))
    held = {name: tensor.clone() for name, tensor in pretrained.items()}

    def change(merged: nn.Module) -> Tensors:
        found = convert_hf_vision(_named(merged), held["visual.proj"])
        return {name: t - held[name] for name, t in found.items() if name.endswith(LINEAR)}

    def run() -> nn.Module:
        return RegMean(
            num_regmean_examples=problem.batch,
            exclude_param_names_regex=[],
            reduce_non_diagonal_ratio=SHRINK,
            weight_transpose=True,
            dataloader_kwargs={"batch_size": 32},
        ).run(Towers(start, towers, batches))

    return Call(run, change)


class Tower(nn.Module):
    """The model under the name that fusion-bench gives it."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.vision_model = CLIPVisionModel(config)


def _tower(problem: Problem, weights: Tensors) -> Tower:
    trunk = problem.trunk
    made = Tower(
        CLIPVisionConfig(
            hidden_size=trunk.width,
            intermediate_size=4 * trunk.width,
            num_hidden_layers=trunk.layers,
            num_attention_heads=trunk.width // trunk.head_width,
            image_size=trunk.image,
            patch_size=trunk.patch,
            projection_dim=trunk.embedding,
            hidden_act="gelu",
        )
    )
    exported = {name.split("vision_model.")[-1]: t for name, t in export_hf_vision(weights).items()}
    own = {name.split("vision_model.")[-1]: t for name, t in made.state_dict().items()}
    for name, tensor in own.items():
        if tensor.is_floating_point():
            tensor.copy_(exported[name])
    return made.eval()


def _named(tower: nn.Module) -> dict[str, Tensor]:
    """Its tensors under the names of files."""
    found = {n.split("vision_model.")[-1]: t for n, t in tower.state_dict().items()}
    return {f"vision_model.{n}": t for n, t in found.items() if t.is_floating_point()}


class Towers(BaseModelPool):
    """Towers and their images."""

    def __init__(self, start: Tower, towers: dict[str, Tower], batches: dict[str, Tensor]) -> None:
        self._start, self._towers, self._batches = start, towers, batches

    def named_models(self) -> Iterator[tuple[str, nn.Module]]:
        return iter(self._towers.items())

    def load_model(self, name: str, *args: Any, **options: Any) -> nn.Module:
        return self._start

    def load_train_dataset(self, name: str, *args: Any, **options: Any) -> list[tuple[Tensor, int]]:
        return [(image, 0) for image in self._batches[name]]


class _Same:
    """Stands for what would move data and models to a device, or pictures to numbers."""

    def setup(self, model: nn.Module) -> nn.Module:
        return model

    def setup_dataloaders(self, loader: Any) -> Any:
        return loader

    def __call__(self, image: Tensor) -> Tensor:
        return image


class RegMean(RegMeanAlgorithmForCLIP):
    """Theirs, with images at hand and without heads: the features are what is computed last."""

    fabric, clip_processor = _Same(), _Same()

    def on_regmean_start(self) -> None:
        pass

    def compute_logits(self, module: nn.Module, batch: Any, task: str) -> Tensor:
        return module.vision_model(batch[0])
