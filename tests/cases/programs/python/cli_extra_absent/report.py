import argparse

import humanize

try:
    from tabulate import tabulate
except ImportError:
    tabulate = None

parser = argparse.ArgumentParser()
parser.add_argument("--pretty", action="store_true")
options = parser.parse_args()

rows = [("disk", humanize.naturalsize(12_345_678)), ("memory", humanize.naturalsize(2_048))]
if options.pretty and tabulate:
    print(tabulate(rows, headers=["what", "size"], tablefmt="github"))
else:
    for what, size in rows:
        print(what, size)
