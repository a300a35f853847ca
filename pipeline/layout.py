"""Where every artifact of a profile lies: the one place that knows."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below the project's root folder. What depends on a seed lies in `seed-<seed>`."""

    root: Path
    profile: str

    @property
    def artifacts(self) -> Path:
        """Everything large: kept by DVC."""
        return self.root / "artifacts" / self.profile

    @property
    def metrics(self) -> Path:
        """Small JSON files: kept by git."""
        return self.root / "metrics" / self.profile

    @property
    def report(self) -> Path:
        """The folder of the report's page and figures."""
        return self.root / "report" / self.profile

    @property
    def cache(self) -> Path:
        """Work done before, found again by content; shared by all profiles."""
        return self.root / ".cache"

    @property
    def pretrained(self) -> Path:
        """The pretrained CLIP: both towers, architecture and vocabulary."""
        return self.artifacts / "pretrained.safetensors"

    @property
    def tasks(self) -> Path:
        """Per task its title, the words of its classes and its templates."""
        return self.artifacts / "data" / "tasks.json"

    @property
    def sources(self) -> Path:
        """What was fetched, from where, with commits and hashes."""
        return self.artifacts / "fetched" / "sources.json"

    def fetched(self, task: str) -> Path:
        """An expert's image encoder as it was fetched, under this project's names."""
        return self.artifacts / "fetched" / f"{task}.safetensors"

    @property
    def lock(self) -> Path:
        """The commits that the profile's branches stood for at the first fetch: kept by git."""
        return self.root / "profiles" / f"{self.profile}.lock.yaml"

    def head(self, task: str) -> Path:
        """A task's zero-shot head: unit rows [classes, dim]."""
        return self.artifacts / "heads" / f"{task}.safetensors"

    def run(self, stage: str) -> Path:
        """When, where and how long a stage ran."""
        return self.artifacts / "runs" / f"{stage}.json"

    def images(self, seed: int, task: str, split: str) -> Path:
        """uint8 [N, 3, height, width]."""
        return self._data(seed, task) / split / "images.npy"

    def labels(self, seed: int, task: str, split: str) -> Path:
        """int64 [N]; there is none for `adapt`."""
        return self._data(seed, task) / split / "labels.npy"

    def splits(self, seed: int, task: str) -> Path:
        """Which source images each split holds, with the hash of its pixels."""
        return self._data(seed, task) / "splits.json"

    def expert(self, seed: int, task: str) -> Path:
        """A fine-tuned image encoder."""
        return self._seeded("experts", seed) / f"{task}.safetensors"

    def vector(self, seed: int, task: str) -> Path:
        """A task vector: expert - pretrained."""
        return self._seeded("vectors", seed) / f"{task}.safetensors"

    def vectors_summary(self, seed: int) -> Path:
        """Norms and cosines of the task vectors."""
        return self._seeded("vectors", seed) / "summary.json"

    def coefficients(self, seed: int, method: str) -> Path:
        """Learned coefficients with their history."""
        return self._seeded("coefficients", seed) / f"{method}.safetensors"

    def merged(self, seed: int, method: str) -> Path:
        """A merged image encoder."""
        return self._seeded("merged", seed) / f"{method}.safetensors"

    def merged_summary(self, seed: int) -> Path:
        """Seconds and options of every merge."""
        return self._seeded("merged", seed) / "summary.json"

    def predictions(self, seed: int, method: str, task: str) -> Path:
        """What a merged model says about a task's `eval` images."""
        return self._seeded("predictions", seed) / method / f"{task}.npz"

    def robustness(self, seed: int, method: str) -> Path:
        """Which corrupted images a method classifies correctly."""
        return self._seeded("robustness", seed) / f"{method}.npz"

    def metric(self, name: str) -> Path:
        """A committed metrics file, such as clean, robustness or generalization."""
        return self.metrics / f"{name}.json"

    def _data(self, seed: int, task: str) -> Path:
        return self._seeded("data", seed) / task

    def _seeded(self, kind: str, seed: int) -> Path:
        return self.artifacts / kind / f"seed-{seed}"
