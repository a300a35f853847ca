"""MLflow tracking: what ran, and what every method achieves.

Two kinds of runs lie under one parent per configuration, in the experiment "adamerge":

    with stage_run(config, layout, "learn") as run:   # one short run per executed stage
        run.log({"entropy/svhn": 1.3}, step=10)

    rows = track(config, layout)                      # one row per method, from the artifacts
    print("http://127.0.0.1:5000" + compare_url(rows))
    promote(config, layout, "ties", seed=0)           # its model becomes merged-clip@champion

Rows are made from files, so that they are complete even where DVC restored a stage from its cache.
Weights stay in DVC; a row says which version they are. No other package imports mlflow, and this
one does so only inside functions: it takes over a second.
"""

from pipeline.tracking.address import (
    check_reachable,
    server_may_be_away,
    shown_uri,
    tracking_uri,
    without_secrets,
)
from pipeline.tracking.registry import promote
from pipeline.tracking.stage import StageRun, stage_run
from pipeline.tracking.table import Rows, compare_url, methods_url, track

__all__ = [
    "Rows",
    "StageRun",
    "check_reachable",
    "compare_url",
    "methods_url",
    "promote",
    "server_may_be_away",
    "shown_uri",
    "stage_run",
    "track",
    "tracking_uri",
    "without_secrets",
]
