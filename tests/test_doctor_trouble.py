"""The doctor where things are broken, which is when it is called; and what it must not tell."""

import os
import shutil
import signal
import subprocess

import pytest
from test_doctor import diagnosed, levels
from tiny import ROOT

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.health import costs
from pipeline.health.findings import Finding, discreet, examine
from pipeline.health.probing import ProbeFailed, probe
from stages import _project, doctor

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture
def quick(root, monkeypatch):
    """A project, and a torch that is not asked."""
    answer = {"cuda": None, "threads": 1, "devices": []}
    monkeypatch.setattr("pipeline.health.machine.probe", lambda *words, **options: answer)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_packages_that_are_missing_or_broken(root, tmp_path):
    broken = tmp_path / "packages"
    broken.mkdir()
    (broken / "yaml.py").write_text('raise ImportError("No module named yaml")')
    (broken / "torch.py").write_text('raise OSError("libcudart.so: cannot open")')
    code, page, printed = diagnosed(root, PYTHONPATH=f"{broken}{os.pathsep}{ROOT}")
    assert code == 2 and "Traceback" not in printed
    [(level, text)] = page["Profile in params.yaml"].values()
    assert level == "problem" and "No module named yaml" in text
    level, text = page["Machine"]["torch"]
    assert level == "problem" and "OSError: libcudart.so: cannot open" in text
    assert page["Versions"]["packages"][0] == "warning"  # there is no pyproject.toml
    assert page["Machine"]["processor"][0] == "ok" and page["Folders"]["artifacts"][0] == "ok"


@pytest.mark.parametrize("text", [None, "profile: [", "profile: cii\ndevice: auto\n", "\0"])
def test_parameters_that_cannot_be_read(text, quick):
    (quick / "params.yaml").unlink()
    if text is not None:
        (quick / "params.yaml").write_text(text)
    page = doctor.examined(quick, None)
    [said] = page["Profile in params.yaml"]
    assert said.level == "problem" and said.text and len(page) == 5
    # What does not follow from the profile is looked at all the same.
    assert levels(page["Machine"])["processor"] == "ok"


@pytest.mark.parametrize("content", [None, b"other"])
def test_a_checkpoint_that_is_not_the_profiles(content, quick):
    path = quick / "zoo" / "mini-clip.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    [said] = costs.checkpoint(load_config(quick))
    assert said.level == "problem" and "git checkout -- zoo/mini-clip.safetensors" in said.advice
    assert levels(doctor.examined(quick, "ci")["Profile ci"])["checkpoint"] == "problem"


def test_exit_code_and_verdict(quick, monkeypatch, capsys):
    page = {"Title": [Finding("one", "a"), Finding("two", "b", "warning")]}
    monkeypatch.setattr(doctor, "examined", lambda root, profile: page)
    doctor.main()
    assert "0 problems, 1 warning. Nothing here would stop" in capsys.readouterr().out
    page["Title"].append(Finding("three", "c", "problem", "mend it"))
    with pytest.raises(doctor.typer.Exit) as end:
        doctor.main()
    assert end.value.exit_code == 2
    assert "PROBLEM: c" in (said := capsys.readouterr().out) and "-> mend it" in said


def test_a_check_that_fails_is_a_finding():
    def check():
        yield Finding("first", "seen")
        raise ValueError("two\nlines")

    first, last = examine("last", check)
    assert (first.text, last.level) == ("seen", "warning")
    assert last.text == "not looked at (ValueError: two lines)"

    def refused():
        raise UserError("There is no file x. Make it.")
        yield

    assert examine("it", refused) == [Finding("it", "There is no file x", "problem", "Make it.")]


def test_a_probe_that_gives_no_answer():
    assert probe("import sys; print('noise'); print('[1, 2]')", seconds=60) == [1, 2]
    with pytest.raises(ProbeFailed, match="no answer within 1 seconds"):
        probe("import time; time.sleep(60)", seconds=1)
    with pytest.raises(ProbeFailed, match=f"crashed .signal {signal.SIGKILL:d}."):
        probe("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", seconds=60)
    with pytest.raises(ProbeFailed, match="ValueError: why"):
        probe("raise ValueError('why')", seconds=60)
    with pytest.raises(ProbeFailed, match="exit code 3"):
        probe("raise SystemExit(3)", seconds=60)


SECRETS = {
    "HF_TOKEN": "hf_AbCdEfGhIj",
    "MLFLOW_TRACKING_PASSWORD": "swordfish",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn",
    "MLFLOW_TRACKING_URI": "http://user:p%40ss/w@127.0.0.1:9/x?token=querysecret",
    "HTTPS_PROXY": "http://me:proxypass@proxy:3128",
}


def test_no_secret_is_told(root):
    code, page, printed = diagnosed(root, **SECRETS)
    for secret in ("hf_AbC", "swordfish", "wJalr", "p%40ss", "p@ss", "querysecret", "proxypass"):
        assert secret not in printed
    assert code == 2 and "127.0.0.1:9" in page["Project"]["MLflow"][1]
    assert page["Project"]["hub"][1].endswith("with a token")


def test_no_token_of_a_file_is_told(quick, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hf_KeptInAFile")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def tells():
        yield Finding("hub", "header 'Bearer hf_KeptInAFile'")

    monkeypatch.setattr("pipeline.health.services.hub", tells)
    told = {one.about: one.text for one in doctor.examined(quick, None)["Project"]}
    assert told["hub"] == "header 'Bearer ***'"


def test_texts_as_they_may_be_published(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    environment = {"X": "postgresql://me:pa/ss%20word@host/db", "MY_TOKEN": "abc", "PLAIN": "shown"}
    texts = {
        "at postgresql://me:pa/ss%20word@host/db?password=x now": "at postgresql://host/db now",
        "login failed for 'pa/ss word'": "login failed for '***'",
        "/home/someone/project and /home/someone-else": "~/project and /home/someone-else",
        "abc shown": "abc shown",  # too short to be hidden wherever it stands
    }
    told = discreet([Finding("about", text, "ok", text) for text in texts], environment)
    assert [(one.text, one.advice) for one in told] == [(text, text) for text in texts.values()]


def commit(root):
    """What is said of git where it can be asked."""
    [said] = _project.git_findings(root)
    return said.text


def test_git_and_dvc(root):
    assert levels(_project.git_findings(root)) == {"git": "warning"}
    assert levels(_project.dvc_findings(root)) == {"DVC": "problem"}

    def run(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@y.z"] if words[0] == "git" else []
        command = [words[0], *identity, *words[1:]]
        path = _project.search_path()
        env = {**os.environ, "PATH": path}
        subprocess.run(command, cwd=root, check=True, capture_output=True, env=env)

    run("git", "init", "-q")
    assert levels(_project.git_findings(root)) == {"git": "warning"}  # without a commit
    run("dvc", "init", "-q")
    (root / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: mkdir -p artifacts/ci && cp params.yaml artifacts/ci/made\n"
        "    deps: [params.yaml]\n    outs: [artifacts/ci/made]\n"
    )
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    assert commit(root).startswith("commit ")
    never, status = _project.dvc_findings(root)
    assert "nothing ran here yet" in never.text
    assert status.text.startswith("'dvc repro' has to run or restore: one (inputs")
    run("dvc", "repro", "-q")
    lock, status = _project.dvc_findings(root)
    assert lock.text == "1 stages of ci" and status.text.endswith("are up to date")
    (root / "params.yaml").write_text("profile: ci\ndevice: auto\n")
    assert "one (inputs)" in [*_project.dvc_findings(root)][-1].text
    assert commit(root).startswith("commit ")
    (root / "zoo" / "new.py").write_text("")
    assert "not committed" in commit(root)
    (root / "dvc.lock").write_text("stages: 3")
    assert levels(_project.dvc_findings(root))["dvc.lock"] == "problem"
    (root / "dvc.yaml").write_text("stages: [")
    assert [*_project.dvc_findings(root)][-1].level == "problem"


def test_the_cache_of_dvc_where_its_configuration_puts_it(root):
    (root / ".dvc").mkdir()
    assert _project.cache_folders(root)["DVC's"] == root / ".dvc" / "cache"
    (root / ".dvc" / "config").write_text("[cache]\n    dir = /large/cache\n")
    assert str(_project.cache_folders(root)["DVC's"]) == "/large/cache"
    (root / ".dvc" / "config.local").write_text("['remote \"x\"']\n[cache]\n    dir = ../near\n")
    assert _project.cache_folders(root)["DVC's"] == root / ".dvc" / ".." / "near"
