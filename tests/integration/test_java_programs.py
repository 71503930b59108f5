"""How Java programs are compiled and started in the image: once, and again only what changed."""

from __future__ import annotations

import shlex

import pytest
from test_image import image, run  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.resolver.model import Context, Target
from services.resolver.plan import plan

__all__ = ["image"]
pytestmark = pytest.mark.docker
CONTEXT = Context(toolchain={"java": "21.0.8", "maven": "3.9.9"})
CACHE = "/sandbox/.cache/qila-java"
FILES = {
    "Main.java": "public class Main { public static void main(String[] a) { System.out.println(Text.of()); } }\n",
    "Text.java": "class Text { static Object of() { return Value.ONE; } }\n",
    "Value.java": "class Value { static final int ONE = 1; }\n",
    "Alone.java": "class Alone { Main main; }\n",
}


def write(files: dict[str, str]) -> str:
    return "".join(f"printf %s {shlex.quote(text)} > {name}\n" for name, text in files.items())


def launch(files: dict[str, str], program: str = "Main.java") -> tuple[str, str]:
    """The command of a plan, and the digest under which the resolver expects the classes."""
    raw = {name: text.encode() for name, text in files.items()}
    argv = plan(raw, list(raw), Target(program=program), CONTEXT).launch.argv
    return f"QILA_JAVA_ENV= {shlex.join(argv)}", argv[1]


def test_a_program_is_compiled_where_the_resolver_expects_it_and_only_once(image: str) -> None:
    command, digest = launch(FILES)
    script = f"cd /sandbox\n{write(FILES)}{command}\nls {CACHE}\n"
    script += f"touch -d @0 {CACHE}/{digest}/state.tsv\n{command}\nstat -c %Y {CACHE}/{digest}/state.tsv\n"
    assert run(image, script).split() == ["1", digest, "1", "0"]


def test_what_depends_on_a_change_is_compiled_again_and_nothing_else(image: str) -> None:
    files = FILES | {"Main.java": FILES["Main.java"] + "class Far { static String x = Other.X; }\n"}
    files["Other.java"] = 'class Other { static String X = "x"; }\n'
    first, before = launch(files)
    # A constant is copied into the classes that use it: they have to be made anew.
    changed = files | {"Value.java": "class Value { static final int ONE = 2; }\n"}
    second, after = launch(changed)
    script = f"cd /sandbox\n{write(files)}{first}\n{write(changed)}{second}\ncd {CACHE}\n"
    same = f"[ {before}/classes/$c.class -ef {after}/classes/$c.class ] && echo $c"
    script += f"for c in Main Text Value Other; do {same}; done\n"
    assert run(image, script + "true\n").split() == ["1", "2", "Other"]


def test_javac_says_what_is_wrong_and_nothing_is_kept(image: str) -> None:
    files = {"Main.java": "class Main { public static void main(String[] a) { int x = ; } }"}
    command, _ = launch(files)
    script = f"cd /sandbox\n{write(files)}{command} 2>&1 || echo ended $?\nls {CACHE}\n"
    words = run(image, script)
    assert "Main.java:1: error: illegal start of expression" in words
    assert words.endswith("ended 1\n")
