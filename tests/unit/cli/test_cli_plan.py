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


def test_all_projects_of_a_directory_are_planned(tmp_path: Path) -> None:
    for path, content in {
        "backend/main.py": "import requests\n",
        "backend/requirements.txt": "requests\n",
        "web/index.js": "require('express')\n",
        "web/package.json": '{"dependencies": {"express": "^4"}}',
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    printed = CliRunner().invoke(cli, ["plan", "--all", str(tmp_path)])
    assert printed.exit_code == 0, printed.output
    lines = printed.output.splitlines()
    assert "python in backend, requirements: manifest" in lines
    assert "node in web, requirements: manifest" in lines
    assert not any(line.startswith("launch") for line in lines)
    (tmp_path / "main.py").write_text("print()\n")
    lines = CliRunner().invoke(cli, ["plan", "--all", "--json", str(tmp_path)]).output.splitlines()
    plans = [json.loads(line) for line in lines]
    assert [item["project"] for item in plans] == [".", "backend", "web"]
    assert plans[0]["launch"]["argv"] == ["python3", "main.py"]
    of_a_file = CliRunner().invoke(cli, ["plan", "--all", str(tmp_path / "main.py")])
    assert "--all is for a DIR" in of_a_file.output


def test_a_language_says_what_runs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print()\n")
    (tmp_path / "index.js").write_text("console.log()\n")
    planned = CliRunner().invoke(cli, ["plan", "--language", "node", str(tmp_path)]).output
    assert planned.splitlines()[-1] == "launch: node index.js"
    refused = CliRunner().invoke(cli, ["plan", "--language", "cobol", str(tmp_path)])
    assert "there are python, node, go, java" in refused.output
