"""Writes ties_oracle.npz: what FusionBench's TIES makes of random task vectors.

Run by hand where fusion-bench 0.2.33 (MIT licence) is installed. Its `ties_merging` has the paper's
disjoint mean and the sum (fusion_bench.method.ties_merging.ties_merging_utils). It keeps one entry
more per task than the share says.
"""

from pathlib import Path

import numpy as np
import torch
from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging

TASKS, ENTRIES, KEEP = 4, 120, 0.3


def main() -> None:
    deltas = torch.tensor(np.random.default_rng(0).standard_normal((TASKS, ENTRIES)))
    found = {"deltas": deltas}
    for reduce in ("sum", "mean"):
        found[reduce] = ties_merging(deltas, reset_thresh=KEEP, merge_func=reduce)
    arrays = {name: tensor.numpy() for name, tensor in found.items()}
    np.savez_compressed(Path(__file__).with_name("ties_oracle.npz"), **arrays)


if __name__ == "__main__":
    main()
