"""Classification among all tasks' classes, against a loop over every class."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.joint import joint_heads
from pipeline.predictions import predict
from pipeline.tasks.words import Words

NUMBER = ("a photo of the number {}",)
WORDS = {
    "street": Words(("zero", "one", "two"), NUMBER),
    "places": Words(("river", "Forest", "road", "lake"), ("a photo of a {}",)),
    "written": Words(("zero", "one", "two"), NUMBER),
    "land": Words(("forest", "river"), ("a satellite photo of {}",)),
}
DIM = 12


@pytest.fixture
def heads():
    """A row for every sentence: tasks that ask the same have the same rows."""
    generator = torch.Generator().manual_seed(5)
    rows, found = {}, {}
    for task, said in WORDS.items():
        keys = [(word, said.templates) for word in said.classes]
        for key in keys:
            fresh = torch.nn.functional.normalize(torch.randn(DIM, generator=generator), dim=0)
            rows.setdefault(key, fresh)
        found[task] = torch.stack([rows[key] for key in keys])
    return found


def by_hand(features, heads, task, label):
    """Chance to be right if all classes that are equally near have the same chance."""
    scores = {
        (other, k): round(float(features @ row), 5)
        for other, head in heads.items()
        for k, row in enumerate(head)
    }
    best = [place for place, score in scores.items() if score == max(scores.values())]
    word = WORDS[task].classes[label].lower()
    own = sum(place == (task, label) for place in best) / len(best)
    return own, sum(WORDS[t].classes[k].lower() == word for t, k in best) / len(best)


@pytest.mark.parametrize("task", WORDS)
def test_against_a_loop_over_all_classes(task, heads):
    generator = torch.Generator().manual_seed(len(task))
    features = torch.randn(300, DIM, generator=generator)
    labels = torch.randint(len(heads[task]), (300,), generator=generator)
    features += 2 * heads[task][labels]
    judged = joint_heads(WORDS, heads)[task].judge(features, labels)
    expected = [
        by_hand(f, heads, task, int(label)) for f, label in zip(features, labels, strict=True)
    ]
    assert judged["joint"].tolist() == [own for own, _ in expected]
    assert judged["joint_same_words"].tolist() == [same for _, same in expected]
    right = judged["joint"].mean(), judged["joint_same_words"].mean()
    assert 0 < right[0] < right[1] <= 1


def test_classes_asked_alike_share_what_they_win(heads):
    """The digits of two tasks: an image nearest to a two is half right in either."""
    joint = joint_heads(WORDS, heads)
    assert len(joint["street"].head) == sum(map(len, heads.values())) - 3
    features, label = heads["street"][2:], torch.tensor([2])
    for task in ("street", "written"):
        judged = joint[task].judge(features, label)
        assert (judged["joint"].item(), judged["joint_same_words"].item()) == (0.5, 1)
    other = joint["land"].judge(heads["places"][1:2], torch.tensor([0]))
    assert (other["joint"].item(), other["joint_same_words"].item()) == (0, 1)


def test_the_order_of_tasks_does_not_matter(heads):
    turned = {task: WORDS[task] for task in reversed(WORDS)}
    features = torch.randn(200, DIM, generator=torch.Generator().manual_seed(1))
    for task in WORDS:
        labels = torch.arange(200) % len(heads[task])
        one = joint_heads(WORDS, heads)[task].judge(features, labels)
        other = joint_heads(turned, heads)[task].judge(features, labels)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_single_task_is_judged_as_with_its_own_head(fit_data):
    head, images = fit_data.heads["dtd"], fit_data.images["dtd"]
    labels = np.arange(len(images)) % len(head)
    words = {"dtd": Words(tuple("abcdef"), ("{}",))}
    joint = joint_heads(words, {"dtd": head})["dtd"]
    said = predict(fit_data.encoder, head, 20.0, images, labels, joint)
    assert said.joint.dtype == said.joint_same_words.dtype == np.float32
    assert said.joint.tolist() == said.joint_same_words.tolist() == said.correct.tolist()


def test_own_figures_do_not_depend_on_other_tasks(fit_data):
    head, images = fit_data.heads["dtd"], fit_data.images["dtd"]
    labels = np.arange(len(images)) % len(head)
    words = {
        task: Words(tuple(map(str, range(len(one)))), (task + " {}",))
        for task, one in fit_data.heads.items()
    }
    joint = joint_heads(words, fit_data.heads)["dtd"]
    alone = predict(fit_data.encoder, head, 20.0, images, labels)
    beside = predict(fit_data.encoder, head, 20.0, images, labels, joint)
    assert alone.joint is None and alone.joint_same_words is None
    for name in ("top", "p_top1", "p_label", "entropy", "brier"):
        assert np.array_equal(getattr(alone, name), getattr(beside, name))
    # The own class wins over all classes only where it wins over those of the task.
    assert (beside.joint <= beside.correct).all()


def test_a_head_of_other_words_is_refused(heads):
    heads["land"] = heads["land"][:1]
    with pytest.raises(UserError, match=r"head of land has 1 classes, but there are 2 .*experts'"):
        joint_heads(WORDS, heads)
