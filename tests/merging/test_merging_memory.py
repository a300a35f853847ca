"""Peak memory of merges over files, with ViT-L/14's widths: it does not grow with the depth."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoints.writing import Kind, Lazy, write_safetensors

WIDTH, TASKS = 1024, 8
BLOCK = {
    "attn.in_proj_weight": (3 * WIDTH, WIDTH),
    "attn.out_proj.weight": (WIDTH, WIDTH),
    "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
    "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
    "ln_1.weight": (WIDTH,),
}
LARGEST = 4 * 4 * WIDTH * WIDTH  # bytes of the largest tensor
MODEL = 4 * sum(int(np.prod(shape)) for shape in BLOCK.values())  # bytes of a block
DEPTH, MANY, HOST = 24, 20, 24e9  # blocks of ViT-L/14, tasks, and bytes that must be enough

# Prints the bytes that each merge took at most above what was held before.
MERGE = """
import json, re, sys
from pathlib import Path
import torch
from pipeline.checkpoints.weights import save_weights
from pipeline.checkpoints.writing import open_arrays
from pipeline.merging import merge_vectors
from pipeline.merging.masks import emr_masked
from pipeline.vectors import TaskVectors, as_tensors

folder, tasks = Path(sys.argv[1]), int(sys.argv[2])
def opened(name):
    return as_tensors(open_arrays(folder / f"{name}.safetensors"), torch.device("cpu"))
def vectors():
    return TaskVectors.between(opened("pretrained"), {f"t{k}": opened(k) for k in range(tasks)})
def memory(key):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(key + r":\\s+(\\d+)", text)[1])
merges = {
    "task_arithmetic": lambda: merge_vectors("task_arithmetic", vectors()).shared,
    "ties": lambda: merge_vectors("ties", vectors()).shared,
    "emr": lambda: emr_masked(vectors()).tensors(),
}
torch.set_num_threads(1)
before = memory("VmRSS")  # once: what a merge leaves with the C library serves the next
found = {}
for name, merge in merges.items():
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    save_weights(folder / "merged.safetensors", merge(), {})
    found[name] = memory("VmHWM") - before
print(json.dumps(found))
"""


def write_models(folder, blocks):
    """A pretrained model and experts of so many blocks, their numbers random."""
    shapes = {f"visual.{block}.{name}": s for block in range(blocks) for name, s in BLOCK.items()}
    kinds = {name: Kind("float32", shape) for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(LARGEST // 4 + TASKS + 1, np.float32)

    def weights(model):
        def make(name):  # every model's are shifted against the others'
            size = int(np.prod(shapes[name]))
            return drawn[model : model + size].reshape(shapes[name])

        return Lazy(kinds, make)

    for model, name in enumerate(["pretrained", *range(TASKS)]):
        write_safetensors(folder / f"{name}.safetensors", weights(model), {})


def peaks(folder, blocks):
    """method -> bytes."""
    folder.mkdir()
    write_models(folder, blocks)
    done = subprocess.run(
        [sys.executable, "-c", MERGE, str(folder), str(TASKS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")
def test_twenty_tasks_of_vit_l_14_merge_within_24_gb(tmp_path):
    one, two = peaks(tmp_path / "one", 1), peaks(tmp_path / "two", 2)
    # Some tensors, however many tasks; then one tensor of every task, and what is made of it.
    assert two["task_arithmetic"] < 8 * LARGEST
    assert two["ties"] < (TASKS + 8) * LARGEST
    # A byte for all tasks' masks of an entry, and the entry itself, are what EMR stores.
    stored = MODEL * (1 + TASKS / 32)
    assert two["emr"] < (TASKS + 8) * LARGEST + 2 * stored
    for method, grows in {"task_arithmetic": 0, "ties": 0, "emr": stored}.items():
        deeper = two[method] - one[method]
        assert deeper < grows + LARGEST
        whole = one[method] + (DEPTH - 1) * max(grows, deeper)
        assert whole * MANY / TASKS < HOST
