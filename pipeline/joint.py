"""Classification without the task's identity: the classes of all tasks compete for every image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.tasks.words import Words


@dataclass(frozen=True)
class Joint:
    """The classes of all tasks in one head, as one of the tasks sees them.

    Classes that are asked with the same sentences, as the digits of MNIST and SVHN in CLIP's own
    templates, share a row: no model can tell them apart. A prediction of such a row counts as one
    of its classes drawn at random, so no figure depends on the order of tasks.
    """

    head: Tensor  # unit rows [rows, dim]
    own: Tensor  # [classes of the task, rows]: chance that a prediction of the row is this class
    same_words: Tensor  # the same, of a class with these words in whichever task

    def to(self, device: torch.device) -> "Joint":
        """The same on another device."""
        return Joint(self.head.to(device), self.own.to(device), self.same_words.to(device))

    def judge(self, features: Tensor, target: Tensor) -> dict[str, Tensor]:
        """For features [batch, dim] and labels [batch] the fields `joint` and `joint_same_words`.

        The chance that the prediction is right, both float32 [batch]: 1 or 0, and a part where rows
        of several classes are the same.
        """
        best = (features @ self.head.T).argmax(dim=1)
        return {
            "joint": self.own[target, best],
            "joint_same_words": self.same_words[target, best],
        }


def joint_heads(words: Mapping[str, "Words"], heads: Mapping[str, Tensor]) -> dict[str, Joint]:
    """task -> the classes of all tasks as it sees them.

    `words` and `heads` [classes, dim] are of the same tasks. Words are the same if they differ in
    nothing but upper and lower case, which CLIP does not see. Raises `UserError` where a head does
    not have a row for every word.
    """
    rows: dict[tuple[str, tuple[str, ...]], int] = {}
    members: list[list[tuple[str, int]]] = []  # row -> its classes
    vectors = []
    for task, said in words.items():
        if len(said.classes) != len(heads[task]):
            raise UserError(
                f"The head of {task} has {len(heads[task])} classes, but there are "
                f"{len(said.classes)} class names. Run 'python -m stages.experts' again."
            )
        for number, (word, vector) in enumerate(zip(said.classes, heads[task], strict=True)):
            key = (word.casefold(), said.templates)
            if key not in rows:
                rows[key] = len(rows)
                members.append([])
                vectors.append(vector)
            members[rows[key]].append((task, number))
    head = torch.stack(vectors)
    own = {task: torch.zeros(len(said.classes), len(head)) for task, said in words.items()}
    for row, classes in enumerate(members):
        for task, number in classes:
            own[task][number, row] = 1 / len(classes)
    spoken = [word for word, _ in rows]  # of each row
    return {
        task: Joint(head, own[task], _equal([word.casefold() for word in said.classes], spoken))
        for task, said in words.items()
    }


def _equal(words: list[str], others: list[str]) -> Tensor:
    """float32 [words, others]: 1 where they are the same."""
    return torch.tensor([[float(word == other) for other in others] for word in words])
