"""`python -m bench [NAME...]`: figures as ratios against a named baseline in the same run, into bench/out/."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict

from bench import consoles, ecosystems, execs, mirror, plans
from bench.figures import Figure, figure, table
from bench.profile_cost import profile_cost
from bench.stack import ROOT, Stack, running_stack

OUT = ROOT / "bench" / "out"
MEASURES: dict[str, Callable[[Stack], Figure | list[Figure]]] = {
    "true": execs.exec_of_true,
    "output": execs.output,
    "first-byte": consoles.first_byte,
    "keystroke": consoles.keystroke,
    "input": consoles.input_stream,
    "streams": consoles.eight_streams,
    "watchers": consoles.watchers,
    "attach": consoles.attach_at_an_offset,
    "second": execs.second_exec,
    "overhead": execs.overhead_of_second_exec,
    "python": ecosystems.python,
    "node": ecosystems.node,
    "go": ecosystems.go,
    "java": ecosystems.java,
    "plan": plans.plan_of_large_tree,
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
            measured = MEASURES[name](stack)
            figures += measured if isinstance(measured, list) else [measured]
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
