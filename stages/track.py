"""Record every method as a row in MLflow, from the artifacts; rows already there stay as they are.

adamerge track
"""

from pathlib import Path

import typer

from stages._progress import say
from stages._stage import ProfileOption, user_errors


def main(profile: ProfileOption = None) -> None:
    """Record every method's results in MLflow, and the runs that it did not take before."""
    with user_errors():
        from pipeline.config import load_config
        from pipeline.layout import Layout
        from pipeline.tracking import shown_uri, track

        root = Path.cwd()
        config = load_config(root, profile)
        rows = track(config, Layout(root, config.name))
        if rows.sent:
            say(f"track: {rows.sent} stage run{'s' if rows.sent > 1 else ''} sent that had waited")
        say(f"track: {rows.written} of {len(rows.run_ids)} rows are new in {shown_uri(root)}")


if __name__ == "__main__":
    typer.run(main)
