"""`adamerge merge --method`: what it says, refuses and leaves behind; its page of docs/."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from model_files import TOWER, layouts, open_clip_model, write_models
from stage_project import tree
from tiny import ROOT
from tutorial import code_blocks
from typer.testing import CliRunner

from pipeline.checkpoints.weights import load_metadata, load_weights, save_weights
from stages.cli import app

PAGE = ROOT / "docs" / "merge-files.md"
INPUTS = "--pretrained clip --expert cars=cars --expert mnist=mnist.pt"
TIES = f"--method ties {INPUTS}"


@pytest.fixture(scope="module")
def made_models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def models(made_models, tmp_path, monkeypatch):
    """The current folder holds links to the models: the same for all tests."""
    folder = tmp_path / "here"
    folder.mkdir()
    for path in made_models.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "linked").symlink_to(folder / "cars")
    monkeypatch.chdir(folder)
    return folder


def adamerge(words):
    return CliRunner().invoke(app, ["merge", *shlex.split(words)], prog_name="adamerge")


def listed(folder):
    return tree(folder), sorted(path.name for path in folder.iterdir())


def test_dry_run_says_what_would_be_done_and_writes_nothing(models):
    before = listed(models)
    result = adamerge(f"{TIES} --option keep=0.1 --out merged --dry-run")
    assert result.exit_code == 0, result.output
    assert "merge: ties (coefficient 0.3, keep 0.1, reduce sum), seed 0" in result.output
    parameters = sum(tensor.numel() for tensor in TOWER.values())
    assert f"{len(TOWER)} tensors, {parameters:,} parameters" in result.output
    size = sum(tensor.numel() for tensor in layouts.PRETRAINED.values()) * 4
    assert f"merged, {size / 1e6:.1f} MB (Hugging Face's layout, CLIPModel)" in result.output
    assert all(f"expert {name}: " in result.output for name in ("cars", "mnist"))
    assert listed(models) == before


@pytest.mark.parametrize(
    ("words", "out"),
    [("ties", "merged"), ("slerp", "merged.safetensors"), ("emr", "per-task")],
)
def test_the_last_line_loads_what_was_written(words, out, models):
    result = adamerge(f"--method {words} {INPUTS} --out {out} --device cpu")
    assert result.exit_code == 0, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith(f"merge: {out} is written. Load it by ")
    [call] = re.findall(r"(?:transformers|safetensors)\.[\w.]+\('[^']+'\)", last)
    module = call.partition(".")[0]
    __import__(f"{module}.torch" if module == "safetensors" else module)
    assert eval(call, {module: sys.modules[module]})
    if ".load_state_dict" in last:
        tensors = eval(call, {module: sys.modules[module]})
        clip = open_clip_model(layouts.ARCHITECTURE)
        assert not clip.load_state_dict(tensors, strict=False).unexpected_keys


REFUSED = {
    "--expert cars=cars": "--expert is for a merge of files: say by which --method",
    "--seed 0": "--seed is for a merge of files",
    f"{TIES} --out a --profile mini": "leave out --profile",
    "--method ties --expert cars=cars --out a": "needs --pretrained",
    "--method ties --pretrained clip --out a": "needs --expert",
    f"{TIES}": "needs --out",
    f"--method tis {INPUTS} --out a": "Unknown method 'tis'. Did you mean ties",
    f"--method adamerging_layerwise {INPUTS} --out a": "needs images, which checkpoints",
    f"--method task_arithmetic_tuned {INPUTS} --out a": "needs images, which checkpoints",
    f"--method fisher {INPUTS} --out a": "name it in a profile and run 'make repro'",
    f"--method experts {INPUTS} --out a": "experts merges nothing",
    f"--method pretrained {INPUTS} --out a": "pretrained merges nothing",
    f"{TIES} --option keeep=1 --out a": "'keeep'. Did you mean keep",
    f"{TIES} --option keep=2 --out a": "keep is 2: give a number above 0 and at most 1",
    f"{TIES} --option keep=most --out a": "keep is 'most'",
    f"{TIES} --option 'keep=[1, 2]' --out a": "'[1, 2]' is no single value",
    f"{TIES} --option 'keep={{' --out a": "is no single value",
    f"{TIES} --option keep=2020-13-45 --out a": "'2020-13-45' is no single value",
    f"{TIES} --option keep=2020-12-31 --out a": "give a number above 0 and at most 1",
    f"{TIES} --option keep --out a": "--option takes name=value, and not 'keep'",
    f"{TIES} --option keep=1 --option keep=1 --out a": "--option names 'keep' twice",
    f"{TIES} --expert cars --out a": "--expert takes name=path, and not 'cars'",
    f"{TIES} --expert cars=cars --out a": "--expert names 'cars' twice",
    f"{TIES} --expert ../x=cars --out a": "'../x' is no name for a file",
    f"{TIES} --expert {'x' * 101}=cars --out a": "use at most 100 letters",
    f"{TIES} --expert again=./cars --out a": "'cars' and 'again' are one checkpoint, cars",
    f"{TIES} --expert again=linked --out a": "'cars' and 'again' are one checkpoint, linked",
    f"{TIES} --expert long={'x' * 300} --out a": f"There is no {'x' * 300}",
    f"{TIES} --seed -1 --out a": "The seed is -1",
    f"{TIES} --device gpu --out a": "Unknown device 'gpu'",
    "--method slerp --pretrained clip --expert cars=cars --out a": "slerp merges 2 experts",
    f"{TIES} --expert lost=lost.pt --out a": "There is no lost.pt",
    f"{TIES} --expert narrow=narrow.safetensors --out a": "'visual.proj' has shape [48, 19]",
    f"{TIES} --expert gelu=gelu --out a": "the activation is GELU instead of QuickGELU",
    f"{TIES} --expert same=tower.safetensors --out a": "'same' is the pretrained model itself",
    f"{TIES} --expert same=open_clip --out a": "'same' is the pretrained model itself",
    "--method ties --pretrained tower.safetensors --expert cars=cars --out a": "name its model",
    "--method ties --pretrained tower.safetensors --expert cars=cars --out a --model ViT-B-32": (
        "not as its architecture says"
    ),
    f"{TIES} --model ViT-B-33 --out a": "Unknown model 'ViT-B-33'",
    f"{TIES} --model ViT-B-32 --out a": "the activation is QuickGELU instead of GELU",
    f"{TIES} --out clip/merged": "one lies inside the other",
    f"{TIES} --out mnist.safetensors": "mnist.safetensors is there already",
    f"{TIES} --out cars --force": "is the input",
    f"{TIES} --out gelu --force": "was written by no merge",
    f"{TIES} --out mnist.safetensors --force": "mnist.safetensors was written by no merge",
    f"{TIES} --out {'x' * 300}": "'xxxxxxxxxxxxxxxxxxxx...' is too long",
    f"{TIES} --out {'x' * 300}/a.safetensors": "'xxxxxxxxxxxxxxxxxxxx...' is too long",
    f"{TIES} --out {'x' * 250}": "'.xxxxxxxxxxxxxxxxxxx...' is too long",
    f"{TIES} --out mnist.safetensors/a": "mnist.safetensors is a file",
    f"{TIES} --out merged.pt": "not as .pt",
    f"--method emr {INPUTS} --out a.safetensors": "emr makes one model per task: give a folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(words, models):
    before = listed(models)
    result = adamerge(words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert REFUSED[words] in result.stderr
    assert result.stdout == "" and listed(models) == before


def test_a_gpu_where_there_is_none(models, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = adamerge(f"{TIES} --device cuda --out a")
    assert result.exit_code == 2 and "there is no CUDA GPU" in result.stderr


def test_a_disk_that_is_too_small(models, monkeypatch):
    class Little:
        free = 200_000

    monkeypatch.setattr("shutil.disk_usage", lambda place: Little)
    before = listed(models)
    result = adamerge(f"{TIES} --out a")
    assert result.exit_code == 2 and "copies of pickled experts" in result.stderr
    assert listed(models) == before


def test_what_a_merge_wrote_is_replaced_when_asked(models):
    for out in ("merged", "merged.safetensors"):
        assert adamerge(f"{TIES} --out {out}").exit_code == 0
        before = listed(models)
        result = adamerge(f"{TIES} --option keep=0.5 --out {out}")
        assert result.exit_code == 2 and "--force" in result.stderr and listed(models) == before
        assert adamerge(f"{TIES} --option keep=0.5 --out {out} --force").exit_code == 0
        assert listed(models)[0] != before[0] and listed(models)[1] == before[1]
    (models / "merged" / "notes.txt").write_text("mine")
    result = adamerge(f"{TIES} --out merged --force")
    assert result.exit_code == 2 and "notes.txt was written by no merge" in result.stderr
    assert (models / "merged" / "notes.txt").read_text() == "mine"


BESIDE = {"config.json": "{}", "vocab.json": "{}", "merges.txt": "a b"}


@pytest.mark.parametrize("inside", ["nothing of a merge", "a folder", "another's weights"])
def test_a_folder_that_no_merge_wrote_is_never_replaced(inside, models):
    folder = models / "mine"
    if inside == "nothing of a merge":  # names that a merge writes too
        folder.mkdir()
    else:
        assert adamerge(f"{TIES} --out mine").exit_code == 0
        if inside == "a folder":
            (folder / "tokenizer.json").mkdir()
            (folder / "tokenizer.json" / "notes.txt").write_text("mine")
        else:
            shutil.copy(models / "mnist.safetensors", folder)
    for name, text in BESIDE.items():
        (folder / name).write_text(text)
    before = listed(models)
    result = adamerge(f"{TIES} --out mine --force")
    assert result.exit_code == 2 and "was written by no merge" in result.stderr
    assert listed(models) == before


def test_an_empty_folder_is_replaced_when_asked(models):
    (models / "merged").mkdir()
    assert adamerge(f"{TIES} --out merged").exit_code == 2
    assert adamerge(f"{TIES} --out merged --force").exit_code == 0


@pytest.mark.parametrize("out", ["merged", "merged.safetensors"])
def test_a_merge_that_is_not_finite_is_not_written(out, models):
    before = listed(models)
    result = adamerge(f"--method wudi {INPUTS} --option lr=1e30 --option steps=3 --out {out}")
    assert result.exit_code == 2, result.output
    assert "wudi makes NaN or infinity of the tensor 'visual." in result.stderr
    assert "look at the method's options (lr 1e+30, steps 3)" in result.stderr
    assert listed(models) == before


def test_numbers_of_options(models):
    """As YAML has them, and 1e-5 besides, which YAML takes for a word."""
    words = "--option lr=1e-5 --option steps=3 --option solve=adam"
    result = adamerge(f"--method wudi {INPUTS} {words} --out a.safetensors --dry-run")
    assert "wudi (solve adam, steps 3, lr 1e-05)" in result.output
    result = adamerge(f"--method lines {INPUTS} --option first=null --out a.safetensors --dry-run")
    assert "first None" in result.output


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_merge_that_is_interrupted_leaves_nothing(sent, models, monkeypatch):
    import pipeline.merge_files as merging

    def interrupt(weights, pretrained):
        os.kill(os.getpid(), sent)
        return weights

    monkeypatch.setattr(merging, "_complete", interrupt)
    before = listed(models)
    result = adamerge(f"{TIES} --out merged")
    assert result.exit_code not in (0, 2) and "Traceback" not in result.output
    assert listed(models) == before


@pytest.mark.parametrize("words", ["--help", f"{TIES} --out merged --dry-run --device cpu"])
def test_torch_is_not_imported_before_there_is_something_to_merge(words, models):
    words = words.replace(" --expert mnist=mnist.pt", "")
    code = (
        f"import sys; sys.argv = {['adamerge', 'merge', *shlex.split(words)]!r}\n"
        "from stages.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert printed.endswith("0 False\n"), printed


def test_every_command_of_the_page(models):
    blocks = code_blocks(PAGE)
    kinds = [kind for kind, _ in blocks]
    assert set(kinds) == {"sh", "python"} and kinds.count("sh") > 2
    for kind, code in blocks:
        if kind == "python":
            exec(code, {})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            assert line.startswith("adamerge merge ")
            result = adamerge(line.removeprefix("adamerge merge "))
            assert result.exit_code == 0, result.output
    assert load_weights(models / "per-task" / "cars.safetensors", "").keys() == TOWER.keys()


def test_preprocessing_that_a_file_names_goes_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo = ROOT / "zoo" / "mini-clip.safetensors"
    facts, weights = load_metadata(zoo, "the zoo"), load_weights(zoo, "the zoo")
    told = json.loads(facts["architecture"])
    tuned = {name: 1.1 * w for name, w in weights.items() if name.startswith("visual.")}
    save_weights(Path("tuned.safetensors"), tuned, {"family": "mini"})
    result = adamerge(f"--method ties --pretrained {zoo} --expert a=tuned.safetensors --out x")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "x" / "preprocessor_config.json").read_text())
    assert written["image_mean"] == told["mean"] and written["image_std"] == told["std"]
