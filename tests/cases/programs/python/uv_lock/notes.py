import click
from markdown_it import MarkdownIt


@click.command()
@click.option("--title", required=True)
def main(title):
    click.echo(MarkdownIt().render(f"# {title}\n\nThere are *seven* of them."))


main()
