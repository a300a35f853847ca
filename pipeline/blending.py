"""Models between two: encoders on the straight line from the pretrained weights to merged ones.

    blend = load_blend(config, layout, "adamerging_layerwise", seed=0)
    blend.at(0.0).classify(images, "cars")   # as the pretrained model
    blend.at(1.0).classify(images, "cars")   # as the merged one

The line is what task arithmetic walks along (https://arxiv.org/abs/2212.04089): at 0.5 every task
vector of the merged model counts half.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.classifier import Classifier, load_merged, one_model
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.profile_models import pretrained_of

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 4  # models in memory beside the merged one, the newest


@dataclass(frozen=True)
class Blend:
    """A merged model, and the pretrained weights [name: tensor] of its image encoder."""

    merged: Classifier
    pretrained: "Mapping[str, Tensor]"
    _made: dict[float, Classifier] = field(default_factory=dict)

    def at(self, share: float) -> Classifier:
        """The model whose weights are (1 - share) pretrained + share merged; the last are kept.

        Raises `ValueError` outside of 0..1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"the share of the merged weights is {share}, not from 0 to 1")
        if share not in self._made:
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made[share] = self._make(share)
        return self._made[share]

    def _make(self, share: float) -> Classifier:
        import torch

        merged = self.merged.encoder.state_dict()
        # At both ends it yields the very numbers.
        weights = {
            name: torch.lerp(start, merged[name], share) for name, start in self.pretrained.items()
        }
        encoder = deepcopy(self.merged.encoder).load(weights, f"the blend at {share}")
        return replace(self.merged, encoder=encoder)


def load_blend(
    config: Config, layout: Layout, method: str, seed: int, device: str = "cpu"
) -> Blend:
    """The line to a profile's merged model, from the files that its stages wrote.

    Raises `UserError` for an unknown name, or a method with a model per task; `MissingInput` naming
    the stage to run; `CheckpointError` for damaged files.
    """
    import torch

    if method in config.methods and not one_model(method):
        raise UserError(
            f"{METHODS[method].title} has a model for every task, so there is no one line to it: "
            "name a method that is one model."
        )
    merged = load_merged(config, layout, method, seed, device=device)
    start = pretrained_of(layout).tower
    weights = {
        name: torch.as_tensor(start[name]).to(tensor).clone()
        for name, tensor in merged.encoder.weights().items()
    }
    return Blend(merged, weights)
