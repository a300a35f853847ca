"""Write the profiles of the published suites from their table: `make profiles`.

python -m stages.profiles
"""

from pathlib import Path

import typer

from stages._progress import say
from stages._stage import user_errors


def main() -> None:
    """Write profiles/vit-*.yaml."""
    with user_errors():
        from pipeline.config.suites import profile_texts
        from pipeline.files import write_text

        texts = profile_texts()
        for name, text in texts.items():
            write_text(Path.cwd() / "profiles" / name, text)
        say(f"profiles: {len(texts)} written")


if __name__ == "__main__":
    typer.run(main)
