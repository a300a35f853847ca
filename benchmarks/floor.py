"""The least time that a step can take on a machine: its multiplications and its memory traffic.

    forward    per image, twice the multiplications of all matrix products of the whole tower
    step       three times as much: the backward pass has two products for each of the forward's
    traffic    task vectors read twice (merge, inner products); pretrained weights read, merged
               weights written and gradients read once

Nothing is subtracted for what an implementation leaves out, such as the last block's unused
tokens; normalisation, softmax and activation functions count nothing.
"""

from benchmarks.settings import Problem, Trunk

FLOAT = 4  # bytes


def forward_flops(trunk: Trunk) -> int:
    """Floating-point operations of the matrix products of one image's forward pass."""
    tokens, width = trunk.tokens, trunk.width
    patches = (tokens - 1) * 3 * trunk.patch**2 * width
    linear = tokens * width * (3 * width + width + 4 * width + 4 * width)
    attention = 2 * tokens * tokens * width  # queries by keys, weights by values
    return 2 * (patches + trunk.layers * (linear + attention) + width * trunk.embedding)


def parameters(trunk: Trunk) -> int:
    """Weights of the tower: what a merge works on."""
    width = trunk.width
    stem = 3 * trunk.patch**2 * width + (trunk.tokens + 1) * width
    block = 12 * width**2 + 13 * width
    norms = 4 * width  # before and after the blocks
    return stem + trunk.layers * block + norms + width * trunk.embedding


def step_flops(problem: Problem) -> int:
    """Floating-point operations of a step's forward and backward passes."""
    return 3 * forward_flops(problem.trunk) * problem.tasks * problem.batch


def step_bytes(problem: Problem) -> int:
    """Bytes of float32 that a step reads and writes for merge and inner products."""
    return FLOAT * parameters(problem.trunk) * (2 * problem.tasks + 3)


def floor_seconds(problem: Problem, flops_per_s: float, bytes_per_s: float) -> float:
    """The least seconds of a step, one after the other what multiplies and what moves."""
    return step_flops(problem) / flops_per_s + step_bytes(problem) / bytes_per_s
