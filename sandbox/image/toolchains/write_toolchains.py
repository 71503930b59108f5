"""Asks every toolchain of the image for its version and writes the answers as JSON.

Usage: write_toolchains.py FILE
"""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

QUESTIONS = {
    "python": (["python3", "--version"], r"Python (\S+)"),
    "uv": (["uv", "--version"], r"uv (\S+)"),
    "pip": (["pip", "--version"], r"pip (\S+)"),
    "node": (["node", "--version"], r"v(\S+)"),
    "npm": (["npm", "--version"], r"(\S+)"),
    "yarn": (["yarn", "--version"], r"(\S+)"),
    "pnpm": (["pnpm", "--version"], r"(\S+)"),
    "tsx": (["tsx", "--version"], r"tsx v(\S+)"),
    "go": (["go", "version"], r"go(\d\S+)"),
    "java": (["javac", "-version"], r"javac (\S+)"),
    "maven": (["mvn", "--version"], r"Apache Maven ([\d.]+)"),
    "gradle": (["gradle", "--version"], r"Gradle (\d\S+)"),
}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def version(command: list[str], pattern: str) -> str:
    """The version that a toolchain gives; a toolchain that does not start, or answers otherwise, ends the build."""
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 -- see QUESTIONS
    found = re.search(pattern, answer.stdout + answer.stderr)
    if found is None:
        raise SystemExit(f"{command[0]} does not tell its version: {answer.stdout}{answer.stderr}")
    return found[1]


def main(path: Path) -> None:
    """Writes the versions and the platform to `path`."""
    facts = {name: version(command, pattern) for name, (command, pattern) in QUESTIONS.items()}
    facts["platform"] = f"linux/{ARCHITECTURES[platform.machine()]}"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(path.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
