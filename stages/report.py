"""Write the report's page and figures, and every method's row in MLflow.

python -m stages.report
"""

import typer

from stages._progress import say
from stages._stage import DryRunOption, ProfileOption, stage


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Build the self-contained report and record the methods in MLflow."""
    from pipeline.tracking import server_may_be_away

    with server_may_be_away(), stage("report", profile, dry_run) as run:
        from pipeline.errors import UserError
        from pipeline.report import build_report
        from pipeline.tracking import track

        run.needs("evaluate", [run.layout.metric("clean")])
        run.plan("one page and its figures")
        page = build_report(run.config, run.layout)
        try:
            track(run.config, run.layout)
        except UserError as error:  # the report is whole without it
            typer.echo(f"Warning: {error} 'adamerge track' writes the rows later.", err=True)
        run.result = str(page.relative_to(run.config.root))
        say("Compare the methods in MLflow: make ui")


if __name__ == "__main__":
    typer.run(main)
