"""What the studies learn and measure under one seed; done before, it comes from the cache."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stages._inputs import images_count
from stages._learning import unlabeled_split
from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipeline.learning import FitData, LearningOptions, Progress
    from pipeline.study.measuring import Judge, Measured
    from pipeline.study.traces import Trace
    from pipeline.study.validators import Scores
    from pipeline.vectors import TaskVectors

MADE_BY = "python -m stages.study"


class Bench:
    """One seed's models and images of some tasks."""

    def __init__(self, run: Stage, seed: int, tasks: Sequence[str] | None = None) -> None:
        self.run, self.seed = run, seed
        self.tasks = tuple(run.config.profile.tasks if tasks is None else tasks)
        self.machines: list[dict[str, Any]] = []  # that the runs of learning were timed on

    def options(self, method: str, schedule: str = "fast", **changes: Any) -> "LearningOptions":
        """The published settings, with the profile's batch, start and number of steps."""
        from pipeline.learning import LearningOptions
        from pipeline.merging.methods import METHODS

        asked = self.run.config.profile.learn.model_dump(
            include={"steps", "batch", "initial", "memory_gb"}
        )
        granularity = METHODS[method].defaults["granularity"]
        return LearningOptions(granularity=granularity, schedule=schedule, **(asked | changes))

    def trace(self, name: str, options: "LearningOptions", images: int | None = None) -> "Trace":
        """Snapshots of one run of learning, on so many unlabeled images of each task."""
        from dataclasses import asdict

        from pipeline.study.traces import load_trace, save_trace

        asked = {key: value for key, value in asdict(options).items() if key != "memory_gb"}
        inputs: dict[str, Any] = {"learned_from": self._learned_from, "options": asked}
        if images is not None:
            inputs["images"] = images
        if options.objective == "distillation":
            layout = self.run.layout
            inputs["experts"] = [layout.expert(self.seed, task) for task in self.tasks]
        entry = self.run.cache.entry("study", "pipeline.study.traces", inputs, ".safetensors")
        if not entry.exists():
            save_trace(entry, self._learn(name, options, images))
        trace = load_trace(entry, MADE_BY)
        self.machines.append(trace.facts["machine"])
        return trace

    def _learn(self, name: str, options: "LearningOptions", images: int | None) -> "Trace":
        from dataclasses import replace

        from pipeline.study.traces import learn_trace
        from stages._learning import fit_data_of
        from stages._stage import machine_facts

        data, vectors = self._warm
        if images is not None:
            data = fit_data_of(self.run, self.seed, self.tasks, images)
        title, steps = f"{name} (seed {self.seed})", options.resolved.steps
        totals = []
        with self.run.progress(title, steps) as update:

            def on_step(progress: "Progress") -> None:
                totals.append(sum(progress.entropies.values()))
                update(progress.step, f"entropy {totals[-1]:.3f} nats")

            trace = learn_trace(vectors, data, options, self.seed, on_step)
        for step, total in enumerate(totals, start=1):  # not while the clock runs
            self.run.log({f"{name}/{self.seed}/entropy": total}, step)
        facts = {**trace.facts, "machine": machine_facts(self.run.config.device)}
        return replace(trace, facts=facts)

    def measured(self, values: "Tensor") -> "Measured":
        """What the merge with these coefficients makes of every image."""
        from pipeline.study.measuring import Measured

        inputs = {"measured_on": self._measured_on, "values": _digest(values)}
        entry = self.run.cache.entry("study", "pipeline.study.measuring", inputs, ".npz")
        if not entry.exists():
            self._judge.measure(values).save(entry)
        return Measured.load(entry, MADE_BY)

    def uniform(self, value: float) -> "Measured":
        """The same of task arithmetic: one coefficient for all."""
        import torch

        return self.measured(torch.full((1, len(self.tasks)), value))

    def scores(self, values: "Tensor") -> "Scores":
        """What label-free validators, and labels, say of the merge on `select` images."""
        from pipeline.files import read_json, write_json

        inputs = {"judged_on": self._judged_on, "values": _digest(values)}
        entry = self.run.cache.entry("study", "pipeline.study.validators", inputs, ".json")
        if not entry.exists():
            write_json(entry, self._validate(values))
        scores: Scores = read_json(entry, MADE_BY)
        return scores

    def tuned(self) -> float:
        """The coefficient of task arithmetic that labels of `select` prefer."""
        from dataclasses import replace

        from pipeline.files import read_json, write_json
        from pipeline.learning import select_coefficient

        grid = self.run.config.profile.learn.grid
        inputs = {"judged_on": self._judged_on, "grid": grid}
        entry = self.run.cache.entry("study", "pipeline.learning.selection", inputs, ".json")
        if not entry.exists():
            data, vectors = self._data
            images, labels = self._select
            labelled = replace(data, images=images, labels=labels)
            found = select_coefficient(vectors, labelled, grid)
            write_json(entry, {"coefficient": round(found.values[0, 0].item(), 6)})
        return float(read_json(entry, MADE_BY)["coefficient"])

    def _validate(self, values: "Tensor") -> "Scores":
        from pipeline.predictions import probabilities
        from pipeline.study.validators import scores_of

        data, vectors = self._data
        data.encoder.load(vectors.merged(values), "the merged model")
        images, labels = self._select
        found = {
            task: probabilities(data.encoder, data.heads[task], data.logit_scale, images[task])
            for task in self.tasks
        }
        return scores_of({task: shares.cpu().numpy() for task, shares in found.items()}, labels)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the tensors that have coefficients."""
        from stages._inputs import encoder_of

        return tuple(encoder_of(self.run)[0].weights())

    @cached_property
    def unlabeled(self) -> int:
        """How many unlabeled images the task with the fewest has."""
        split = unlabeled_split(self.run)
        return min(images_count(self.run, self.seed, task, split) for task in self.tasks)

    @cached_property
    def _learned_from(self) -> str:
        """Stands for all that learning reads, so that a file is read for its hash once."""
        inputs = {**self._files, "seed": self.seed}
        return self.run.cache.entry("study", "pipeline.study.traces", inputs, "").name

    @cached_property
    def _measured_on(self) -> str:
        """The same for measuring."""
        inputs = self._files | self._labelled("eval")
        return self.run.cache.entry("study", "pipeline.study.measuring", inputs, "").name

    @cached_property
    def _judged_on(self) -> str:
        """The same for the validators."""
        inputs = self._models | self._labelled("select")
        return self.run.cache.entry("study", "pipeline.study.validators", inputs, "").name

    @property
    def _models(self) -> dict[str, Any]:
        layout, seed = self.run.layout, self.seed
        return {
            "pretrained": layout.pretrained,
            "vectors": [layout.vector(seed, task) for task in self.tasks],
            "heads": [layout.head(task) for task in self.tasks],
            "precision": self.run.precision(),
            "tasks": self.tasks,
        }

    @property
    def _files(self) -> dict[str, Any]:
        layout, split = self.run.layout, unlabeled_split(self.run)
        unlabeled = [layout.images(self.seed, task, split) for task in self.tasks]
        return self._models | {"unlabeled": unlabeled}

    def _labelled(self, split: str) -> dict[str, Any]:
        layout, seed = self.run.layout, self.seed
        return {
            "images": [layout.images(seed, task, split) for task in self.tasks],
            "labels": [layout.labels(seed, task, split) for task in self.tasks],
        }

    @cached_property
    def _data(self) -> tuple["FitData", "TaskVectors"]:
        from stages._inputs import vectors_of
        from stages._learning import fit_data_of

        data = fit_data_of(self.run, self.seed, self.tasks)
        return data, vectors_of(self.run, self.seed, self.tasks)

    @cached_property
    def _warm(self) -> tuple["FitData", "TaskVectors"]:
        """The same, after a step that nobody times: the first in a process takes longer."""
        from pipeline.learning import learn_coefficients

        data, vectors = self._data
        learn_coefficients(vectors, data, self.options("adamerging_taskwise", steps=1))
        return data, vectors

    @cached_property
    def _select(self) -> tuple[dict[str, "np.ndarray"], dict[str, "np.ndarray"]]:
        """Images and labels of `select`."""
        from stages._inputs import images_of, labels_of

        asked = self.run, self.seed, self.tasks, "select"
        return images_of(*asked), labels_of(*asked)

    @cached_property
    def _judge(self) -> "Judge":
        from pipeline.study.measuring import UNLABELED, Judge
        from stages._inputs import images_of, labels_of

        data, vectors = self._data
        return Judge(
            encoder=data.encoder,
            logit_scale=data.logit_scale,
            vectors=vectors,
            heads=data.heads,
            unlabeled={task: images[:UNLABELED] for task, images in data.images.items()},
            images=images_of(self.run, self.seed, self.tasks, "eval"),
            labels=labels_of(self.run, self.seed, self.tasks, "eval"),
        )


def _digest(values: "Tensor") -> str:
    """Stands for coefficients [rows, tasks]."""
    import hashlib

    # All tensors alike: the same model, however many rows its coefficients have.
    alike = bool((values == values[0]).all())
    exact = (values[:1] if alike else values).contiguous().numpy().tobytes()
    return hashlib.sha256(exact).hexdigest()
