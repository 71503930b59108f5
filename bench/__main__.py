"""`python -m bench [NAME...]`: figures as ratios against a named baseline in the same run, into bench/out/."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from bench import execs, mirror
from bench.figures import Figure, figure, table
from bench.profile_cost import profile_cost
from bench.stack import ROOT, running_stack

OUT = ROOT / "bench" / "out"
MEASURES = {
    "true": execs.exec_of_true,
    "output": execs.output,
    "second": execs.second_exec,
    "install": mirror.warm_install,
    "download": mirror.warm_download,
}


def main(names: list[str]) -> None:
    unknown = set(names) - set(MEASURES)
    if unknown:
        raise SystemExit(f"bench: no such figure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    figures: list[Figure] = []
    with running_stack() as stack:
        for name in names or MEASURES:
            print(f"bench: {name} …", file=sys.stderr, flush=True)
            figures.append(MEASURES[name](stack))
    if not names:
        print("bench: profile …", file=sys.stderr, flush=True)
        figures += [figure(row.name, row.ours, row.unconfined, "without a seccomp filter") for row in profile_cost()]
    OUT.mkdir(parents=True, exist_ok=True)
    rows = {row.name: asdict(row) for row in figures}
    (OUT / "report.json").write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (OUT / "report.md").write_text(table(figures), encoding="utf-8")
    print(table(figures))
    print("bench: written to bench/out/report.json and bench/out/report.md")


if __name__ == "__main__":
    main(sys.argv[1:])
