"""`qila plan` as a person reads it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from qila.cli.__main__ import cli


def test_a_plan_says_what_is_needed_what_is_missing_and_what_was_probably_meant(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import docx, utils\nimport requests\n")
    (tmp_path / "requirements.txt").write_text("requests\nreqeusts\n")
    printed = CliRunner().invoke(cli, ["plan", str(tmp_path)])
    assert printed.exit_code == 0, printed.output
    lines = printed.output.splitlines()
    assert lines[:3] == ["python, requirements: manifest", "  needs requests", "    requirements.txt:1"]
    assert "  main.py:1 imports docx, which is not declared: add `python-docx` to requirements.txt" in lines
    assert "  requirements.txt:2: no package is known by the name reqeusts: did you mean requests?" in lines
    assert lines[-1] == "launch: python3 main.py"


def test_a_plan_as_json_and_a_manifest_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import requests\n")
    printed = CliRunner().invoke(cli, ["plan", "--json", str(tmp_path / "main.py"), "--", "-x"])
    assert json.loads(printed.output)["launch"]["argv"] == ["python3", "main.py", "-x"]
    (tmp_path / "requirements.txt").write_text("requests\n-e git+https://example.com/x.git\n")
    refused = CliRunner().invoke(cli, ["plan", str(tmp_path)])
    assert refused.exit_code != 0
    assert "requirements.txt:2" in refused.output
