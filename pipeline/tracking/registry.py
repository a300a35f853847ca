"""The model registry: merged models as versions of one entry, and which of them is in use."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import need, sha256
from pipeline.layout import Layout
from pipeline.tracking.address import require_store
from pipeline.tracking.notes import NOTE
from pipeline.tracking.row import read_rows
from pipeline.tracking.store import Store, explained, lock, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run

MODEL = "merged-clip"
CHAMPION = "champion"
KEPT = ("profile", "method", "seed", "protocol", "git.sha", "dvc.path", "dvc.md5")
ABOUT = (
    "CLIP image encoders merged from one expert per task. A version is one merged model: its tags "
    "say what made it and where DVC keeps the weights. The alias `champion` is moved by "
    "`adamerge gate --promote`, and only if no metric fell below the committed ones."
)


def promote(config: Config, layout: Layout, method: str, seed: int) -> str:
    """Give the alias `champion` to a method's model; returns the version's number.

    The version is made if the newest row has none. Raises `UserError` where the method or the
    seed is not the profile's, is more than one model, has no row of the present figures in the
    store, or where the store cannot be used.
    """
    from pipeline.classifier import check_choice, one_model

    check_choice(config, method, seed)
    if not one_model(method):
        raise UserError(
            f"{method} is not one model file: it keeps parameters for every task. "
            "Promote a method that merges into one model."
        )
    require_store(config.root)
    rows = {(row.method, row.seed): row for row in read_rows(config, layout)}
    row = rows.get((method, seed))
    store = open_store(config)
    with explained(config.root), lock(config.root, "registry"):
        wanted = {"kind": "method", "profile": config.name, "method": method, "latest": "true"}
        found = store.search({**wanted, "seed": str(seed)})
        if row is None or not found or found[0].data.tags.get("row.digest") != row.digest:
            raise UserError(
                f"MLflow has no row of {method}, seed {seed}, with the present figures of "
                f"{config.name}. Run 'adamerge track' first."
            )
        version = registered(store, layout, found[0])
        store.client.set_registered_model_alias(MODEL, CHAMPION, version)
    return version


def register_default(store: Store, config: Config, layout: Layout, runs: Mapping[str, str]) -> None:
    """Make a version of the model that export and predict take where no method is named.

    `runs`: method -> run of its newest row, of the profile's first seed.
    """
    from pipeline.classifier import default_method

    try:
        method = default_method(config)
    except UserError:  # a profile without such a method has nothing to register
        return
    seed = config.profile.seeds[0]
    if method in runs and layout.merged(seed, method).is_file():
        registered(store, layout, store.client.get_run(runs[method]))


def registered(store: Store, layout: Layout, run: "Run") -> str:
    """The version of a row's model, made if there is none; raises `UserError` without a model."""
    found = store.client.search_model_versions(f"name = '{MODEL}' and run_id = '{run.info.run_id}'")
    if found:
        return str(found[0].version)
    tags = run.data.tags
    if not run.outputs or not run.outputs.model_outputs:
        raise UserError(
            f"The row of {tags['method']}, seed {tags['seed']}, was recorded without its weights. "
            "Run 'python -m stages.merge', then 'adamerge track'."
        )
    model = store.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    weights = need(layout.merged(int(tags["seed"]), tags["method"]), "python -m stages.merge")
    _make_entry(store)
    version = store.client.create_model_version(
        MODEL,
        # Not models:/<id>: that MLflow looks up in its global store, which may be another one.
        model.artifact_location,
        run.info.run_id,
        {name: tags[name] for name in KEPT if name in tags} | {"weights.sha256": sha256(weights)},
        description=tags.get(NOTE),
        model_id=model.model_id,
    )
    return str(version.version)


def _make_entry(store: Store) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(MODEL, description=ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
