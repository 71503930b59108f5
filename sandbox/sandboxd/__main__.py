"""Start of a sandbox: `python3 -I -S /usr/lib/qila/sandboxd` as the container's first process."""

# This directory is what Python puts on its path; from the checkout's root the package has a longer name.
from qila_sandboxd.daemon import main  # type: ignore[import-not-found]

main()
