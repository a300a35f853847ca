"""Answer over HTTP what images show, with a merged model: by MLflow's server, on this machine.

adamerge serve
adamerge serve --model merged-clip --port 5001
"""

import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from stages._model import MethodOption, ModelOption, SeedOption, choose, exported
from stages._progress import progress_bar, say
from stages._server import HOST, check_free, serving, until_stopped, wait
from stages._stage import ProfileOption, user_errors

Port = Annotated[int, typer.Option("--port", help="Port of the server.")]


def main(
    model: ModelOption = None,
    profile: ProfileOption = None,
    method: MethodOption = None,
    seed: SeedOption = None,
    port: Port = 5001,
) -> None:
    """Classify images over HTTP with a merged model, by MLflow's server."""
    with user_errors():
        check_free(port)
        given = _given(model, profile, method, seed)
        log = Path.cwd() / ".cache" / "mlflow-serve.log"
        with until_stopped(), _folder(log.parent) as folder:
            if given is None:
                given = folder / "model"
                _export(given, profile, method, seed)
            tasks = _save(given, folder / "served")
            command = ["models", "serve", "--model-uri", str(folder / "served")]
            command += ["--env-manager", "local", "--workers", "1"]
            # Nothing that is served has a pickle in it, and none is to be read.
            strict = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
            with serving(command, port, log, strict) as server:
                say(_words(port, tasks))
                wait(server, log)


def _given(
    model: Path | None, profile: str | None, method: str | None, seed: int | None
) -> Path | None:
    """The exported folder that the options name, if any; raises `UserError` if it is none."""
    from pipeline.serving import check_servable

    folder = exported(model, profile, method, seed)
    if folder is not None:
        check_servable(folder)
    return folder


@contextmanager
def _folder(cache: Path) -> Iterator[Path]:
    """A folder for what is served, which ends with the server."""
    from pipeline.errors import UserError
    from pipeline.files import ADVICE

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="serve-", dir=cache) as folder:
            yield Path(folder)
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise UserError(f"Cannot write to {cache}: {advice}.") from error


def _export(out: Path, profile: str | None, method: str | None, seed: int | None) -> None:
    """Write the profile's model as a folder."""
    from pipeline.config import load_config
    from pipeline.exporting import Request, export, planned
    from pipeline.layout import Layout
    from pipeline.tracking.provenance import git_state

    config = load_config(Path.cwd(), profile)
    chosen, number = choose(config, method, seed)
    plan = planned(
        config, Layout(config.root, config.name), Request(out, "open_clip", chosen, number)
    )
    say(f"serve: {chosen} of profile {config.name}, seed {number}")
    with progress_bar("exporting", plan.steps) as update:
        export(plan, git_state(config.root), update)


def _save(exported: Path, out: Path) -> tuple[str, ...]:
    """Write an exported folder as an MLflow model; returns its tasks."""
    from pipeline.serving import save_served

    say("serve: starting MLflow's server, which takes some seconds")
    # In a process of its own: it loads what the server loads, and is done. Ctrl-C is not for it.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, quiet) as pool:
        return pool.submit(save_served, exported, out).result()


def _words(port: int, tasks: tuple[str, ...]) -> str:
    """Where it is, and how to ask it."""
    # curl leaves the ends of lines out.
    return f"""serve: http://{HOST}:{port}/invocations answers. Tasks: {", ".join(tasks)}, any.
Ask it about an image, say photo.png:
  (echo '{{"dataframe_records": [{{"image": "'; base64 < photo.png; \\
   echo '"}}], "params": {{"task": "{tasks[0]}", "top": 3}}}}') | \\
  curl -s -d @- -H 'Content-Type: application/json' http://{HOST}:{port}/invocations
Press Ctrl-C to stop."""


if __name__ == "__main__":
    typer.run(main)
