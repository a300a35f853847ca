"""Images go to their rows in the files of their splits: whole, in bounded memory, or not at all."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, jpeg, picture

from pipeline.data import decoding, load_array
from pipeline.data.decoding import Encoded, Target, decode, preprocessed
from pipeline.errors import UserError

SIZE = 16
CONTENTS = [jpeg(seed, 20 + seed % 7, 20 + seed % 5) for seed in range(70)]


def source(contents=CONTENTS, until=None):
    for number, content in enumerate(contents[:until]):
        yield Encoded(f"shard row {number}", content, 100 + number)


def target(folder, name, rows, labels=True):
    rows = np.array(rows, np.int64)
    return Target(
        rows, folder / name / "images.npy", folder / name / "labels.npy" if labels else None
    )


def run(targets, images=None, workers=1, on_progress=lambda done: None):
    decode(source() if images is None else images, targets, SIZE, workers, on_progress)


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check(written):
    images = load_array(written.images, "fetch")
    assert images.dtype == np.uint8 and images.shape == (len(written.rows), 3, SIZE, SIZE)
    for row, number in enumerate(written.rows):
        assert np.array_equal(images[row], preprocessed(CONTENTS[number], SIZE))
    if written.labels:
        labels = load_array(written.labels, "fetch")
        assert labels.dtype == np.int64 and labels.tolist() == (100 + written.rows).tolist()


def test_images_go_to_the_rows_of_their_splits(tmp_path):
    rows = np.random.default_rng(0).permutation(65)
    targets = [
        target(tmp_path, "adapt", rows[:20], labels=False),
        target(tmp_path, "select", rows[20:21]),
        target(tmp_path, "eval", rows[21:50]),
        target(tmp_path, "none", []),
    ]
    done = []
    run(targets, workers=2, on_progress=done.append)
    for written in targets:
        check(written)
    files = ["adapt/images.npy", "eval/images.npy", "eval/labels.npy", "none/images.npy"]
    assert listed(tmp_path) == [*files, "none/labels.npy", "select/images.npy", "select/labels.npy"]
    assert done == sorted(done) and done[-1] == 50


def test_a_whole_split_in_the_order_of_its_source(tmp_path):
    whole = target(tmp_path, "eval", np.arange(70))
    run([whole])
    check(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_bounded_however_many_images(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(decoding, "BATCH", 4)
    count, read, done, lead = 400, 0, 0, []

    def counted():
        nonlocal read
        for number in range(count):
            read += 1
            lead.append(read - done)
            yield Encoded(f"row {number}", CONTENTS[0], 0)

    def progress(images):
        nonlocal done
        done = images

    run([target(tmp_path, "eval", np.arange(count))], counted(), workers, progress)
    assert done == read == count
    assert max(lead) <= 4 * decoding.AHEAD * workers
    assert max(lead) > 4 * workers  # while workers are busy the next images are read


def test_large_images_make_small_batches():
    rows = [decoding._Row(0, "", bytes(size), Path(), 0) for size in [10, 600_000, 600_000, 5, 7]]
    assert [len(batch) for batch in decoding.batches_of(rows, 32)] == [3, 2]
    assert [len(batch) for batch in decoding.batches_of(rows[:1] * 65, 32)] == [32, 32, 1]


def test_broken_images_are_named_and_nothing_is_written(tmp_path):
    contents = list(CONTENTS)
    for number in (2, 11, 40, 41, 69):
        contents[number] = contents[number][:200]
    with pytest.raises(UserError) as error:
        run([target(tmp_path, "eval", np.arange(70))], source(contents), workers=2)
    said = str(error.value)
    assert said.startswith("5 images are broken: shard row 2 (")
    assert [f"shard row {row} " in said for row in (2, 11, 40, 41, 69)] == [True] * 3 + [False] * 2
    assert "; and 2 more. Fetch" in said
    assert listed(tmp_path) == []
    with pytest.raises(UserError, match=r"^1 image is broken: shard row 2 \([^;]*\)\. Fetch"):
        run([target(tmp_path, "eval", [3, 2, 1])], source(contents))


def test_images_that_no_split_wants_are_not_decoded(tmp_path):
    contents = list(CONTENTS)
    contents[5] = b"broken"
    some = target(tmp_path, "eval", [4, 6, 9])
    images = source(contents)
    run([some], images)
    check(some)
    assert next(images).where == "shard row 10"  # nor is what follows them read


def test_a_source_that_ends_early_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="Only 30 of 40 images are there"):
        run([target(tmp_path, "eval", np.arange(40))], source(until=30))
    assert listed(tmp_path) == []


def test_an_error_of_the_source_leaves_nothing(tmp_path):
    def failing():
        yield from source(until=40)
        raise UserError("the shard is damaged")

    with pytest.raises(UserError, match="the shard is damaged"):
        run([target(tmp_path, "eval", np.arange(60))], failing())
    assert listed(tmp_path) == []


@pytest.mark.parametrize("rows", [[[1, 1]], [[1, 2], [2, 3]]])
def test_an_image_has_one_place(tmp_path, rows):
    with pytest.raises(ValueError, match="two places"):
        run([target(tmp_path, str(number), some) for number, some in enumerate(rows)])


def allocation_fails(monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)


def test_a_full_disk_is_found_before_anything_is_decoded(tmp_path, monkeypatch):
    allocation_fails(monkeypatch, errno.ENOSPC)
    images = source()
    with pytest.raises(UserError, match=r"Cannot write .*images\.npy: the disk is full"):
        run([target(tmp_path, "eval", [0])], images)
    assert next(images).where == "shard row 0"
    assert listed(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_take_room_beforehand(tmp_path, monkeypatch, number):
    allocation_fails(monkeypatch, number)
    some = target(tmp_path, "eval", [1, 0])
    run([some])
    check(some)


def test_a_worker_that_is_killed(tmp_path):
    def killing():
        yield from source(until=64)
        for child in children(os.getpid()):
            os.kill(child, signal.SIGKILL)
        yield from source()

    with pytest.raises(UserError, match="was ended, as happens where memory runs out"):
        run([target(tmp_path, "eval", np.arange(100))], killing(), workers=2)
    assert listed(tmp_path) == []


def children(process):
    """Spawned processes whose parent is `process`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def test_killed_in_the_middle_leaves_no_file_and_no_worker(tmp_path):
    script = Path(__file__).with_name("slow_decoding.py")
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "images.npy"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "decoding\n"
        workers = children(process.pid)
        assert len(workers) == 2
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "images.npy").exists()
    patience = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_what_pil_warns_of_is_not_printed(tmp_path, capfd):
    content = encoded(picture(20, 20, mode="P"), "PNG", transparency=bytes(range(256)))
    run([target(tmp_path, "eval", [0])], [Encoded("a palette", content, 0)])
    assert capfd.readouterr() == ("", "")


def test_workers_import_neither_torch_nor_pyarrow():
    code = "import sys, pipeline.data.decoding; print({'torch', 'pyarrow'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True) == "set()\n"
