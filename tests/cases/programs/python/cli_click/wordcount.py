"""Count words in text files."""
import re
import sys
from collections import Counter
from pathlib import Path

import click


@click.group()
def cli():
    pass


@cli.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--top", default=10, show_default=True)
@click.option("--fail-below", default=0)
def count(path, top, fail_below):
    words = re.findall(r"\w+", path.read_text().lower())
    for word, number in Counter(words).most_common(top):
        click.echo(f"{word}: {number}")
    if len(words) < fail_below:
        click.secho(f"only {len(words)} words", fg="red", err=True)
        sys.exit(3)


if __name__ == "__main__":
    cli()
