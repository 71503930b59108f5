"""Node: what the scan finds, how failed runs are explained, and that hostile input costs little."""

from __future__ import annotations

import json

import pytest

from services.resolver.errors import ManifestError
from services.resolver.model import Context, FailureReason, Options, Plan, StepKind, Target
from services.resolver.node.assemble import _link_steps
from services.resolver.node.engines import needs_newer
from services.resolver.node.json_text import JsonText, read_relaxed
from services.resolver.node.missing import explain_run
from services.resolver.node.planner import NodePlanner
from services.resolver.node.scan import scan_source
from services.resolver.node.specifier import split_package
from services.resolver.node.table import builtin_modules, package_table
from services.resolver.node.tsconfig import Compilers
from services.resolver.plan import plan

TOOLCHAIN = {"python": "3.13.5", "node": "24.11.0", "npm": "11.6.1"}


def found(text: str, path: str = "a.ts") -> list[str]:
    """The specifiers that count at run time, with `?` behind those that are optional."""
    scan = scan_source(path, text.encode())
    return [item.specifier + "?" * item.optional for item in scan.imports if not item.types_only]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a, * as b from 'x'; a(); b()", ["x"]),
        ("import 'x'", ["x"]),
        ("export * as y from 'x'", ["x"]),
        ("export type { Y } from 'x'", []),
        ("import type Y from 'x'", []),
        ("import { type Y } from 'x'", []),
        ("import { type Y, z } from 'x'; z()", ["x"]),
        ("import { Y } from 'x'; let y: Y", []),
        ("import { Y } from 'x'; class Z extends Y {}", ["x"]),
        ("import { Y } from 'x'; class Z implements Y {}", []),
        ("import * as ns from 'x'; let y: ns.Y", []),
        ("import { y } from 'x'; let z: typeof y", []),
        ("import { y } from 'x'; const z = { y }", ["x"]),
        ("import { y as z } from 'x'; z", ["x"]),
        ("import y from 'x'; export { y }", ["x"]),
        ("type T = import('x').T", []),
        ("import y = require('x')", ["x"]),
        ("import type y = require('x')", []),
        ("const y = require.resolve('x')", ["x"]),
        ("import.meta.resolve('x')", ["x"]),
        ("const y = await import(/* webpack: true */ 'x')", ["x"]),
        ("import y from './y.json' with { type: 'json' }; y", ["./y.json"]),
        ("object.require('x'); requires('x'); important('x')", []),
        ("try { require('x') } catch {}", ["x?"]),
        ("try { require('x') } finally {}", ["x"]),
        ("try { require('x') } catch (e) { throw e }", ["x"]),
        ("try { try { require('x') } catch {} } catch (e) { throw e }", ["x?"]),
        ("import('x').catch(() => {})", ["x?"]),
        ("import('x').then(y => y).catch(() => {})", ["x?"]),
        ("import('x').catch(e => { throw e })", ["x"]),
        ("import('x').then(() => {}, () => {})", ["x"]),
    ],
)
def test_imports(text: str, expected: list[str]) -> None:
    assert found(text) == expected


def test_generics_are_no_elements() -> None:
    assert found("import { y } from 'x'; const z = <T,>(a: T) => y<T>(a)", "a.tsx") == ["x"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lodash/fp", ("lodash", "fp")),
        ("@a/b/c/d", ("@a/b", "c/d")),
        ("@a", ("", "")),
        ("@/a", ("", "")),
        ("JSONStream", ("JSONStream", "")),
        ("a b", ("", "")),
        ("x" * 300, ("", "")),
    ],
)
def test_names_of_packages(name: str, expected: tuple[str, str]) -> None:
    assert split_package(name) == expected


def test_the_table_knows_no_types_builtins_generic_or_confused_names() -> None:
    table = package_table()
    assert table.knows("express")
    assert table.knows("@aws-sdk/client-s3")
    wrong = [name for name in table.ranks if name.startswith("@types/") or name in table.generic]
    assert wrong == []
    assert builtin_modules().isdisjoint(table.ranks)
    assert not any(table.knows(name) for name in table.confusions)


def test_what_is_meant_by_a_confused_name_is_known() -> None:
    table = package_table()
    meant = [note.partition(" is the package")[0] for note in table.confusions.values() if " is the package" in note]
    assert [name for name in meant if not table.knows(name)] == []


@pytest.mark.parametrize(
    ("wanted", "newer"),
    [
        (">=18", False),
        (">=24.12", True),
        ("^26 || >=20", False),
        ("^26 || >=25", True),
        ("18.x", False),
        ("25.x", True),
        ("*", False),
        ("<30", False),
        ("18 - 99", False),
        ("latest", False),
        (">=" + "9" * 500, False),
    ],
)
def test_engines(wanted: str, *, newer: bool) -> None:
    assert needs_newer(wanted, "24.11.0") is newer


ESM = """node:internal/modules/package_json_reader:316
  throw new ERR_MODULE_NOT_FOUND(packageName, fileURLToPath(base), null);
        ^

Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'axios' imported from /sandbox/src/main.mjs
    at Object.getPackageJSONURL (node:internal/modules/package_json_reader:316:9)
    at packageResolve (node:internal/modules/esm/resolve:768:81) {
  code: 'ERR_MODULE_NOT_FOUND'
}

Node.js v24.11.0
"""
COMMONJS = """node:internal/modules/cjs/loader:1404
  throw err;
  ^

Error: Cannot find module '{name}'
Require stack:
- /sandbox/lib/db.js
- /sandbox/index.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1401:15)
    at require (node:internal/modules/helpers:152:16)
    at Object.<anonymous> (/sandbox/lib/db.js:3:12) {{
  code: 'MODULE_NOT_FOUND',
  requireStack: [ '/sandbox/lib/db.js', '/sandbox/index.js' ]
}}

Node.js v24.11.0
"""


def test_a_failed_import_of_esm_is_explained() -> None:
    (item,) = explain_run(ESM.encode(), ["package.json"])
    assert (item.module, item.path, item.suggestion) == ("axios", "src/main.mjs", "axios@*")
    assert (item.package, item.manifest, item.declaration) == ("axios", "package.json", '"axios": "*"')


def test_a_failed_require_is_explained_with_its_line() -> None:
    (item,) = explain_run(COMMONJS.format(name="pg/lib/client").encode(), ["apps/a/package.json"])
    assert (item.module, item.path, item.line) == ("pg/lib/client", "lib/db.js", 3)
    assert (item.package, item.manifest) == ("pg", "apps/a/package.json")


@pytest.mark.parametrize(
    ("name", "module", "note"),
    [
        ("./helper", "./helper", "a file of the program's own that is not there"),
        ("/sandbox/gone.js", "gone.js", "a file of the program's own that is not there"),
        ("jwt", "jwt", "jsonwebtoken is the package"),
        ("zq-nothing-known", "zq-nothing-known", ""),
    ],
)
def test_what_no_package_provides_has_no_suggestion(name: str, module: str, note: str) -> None:
    (item,) = explain_run(COMMONJS.format(name=name).encode(), [])
    assert (item.module, item.note, item.suggestion, item.declaration) == (module, note, "", "")


def test_only_what_ended_the_program_is_explained() -> None:
    other = "TypeError: x is not a function\n    at /sandbox/a.js:1:1\n\nNode.js v24.11.0\n"
    assert explain_run((ESM.replace("\n\nNode.js v24.11.0\n", "\n") + other).encode(), []) == []
    assert explain_run((ESM + "and the program went on\n").encode(), []) == []
    assert explain_run(ESM.replace("Node.js v24.11.0\n", "").encode(), []) == []
    assert explain_run(b"", []) == []
    (item,) = explain_run((other + ESM).encode(), [])
    assert item.module == "axios"
    (item,) = explain_run(
        (ESM + "npm error Lifecycle script `start` failed with error:\nnpm error code 1\n").encode(), []
    )
    assert item.module == "axios"


def planned(package: dict[str, object], options: Options | None = None, source: bytes = b"") -> Plan:
    files = {"index.js": source, "package.json": json.dumps(package).encode()}
    context = Context(toolchain=TOOLCHAIN, options=options or Options())
    return plan(files, list(files), Target(), context)


def test_the_fingerprint_is_over_what_decides_the_install() -> None:
    dependencies: dict[str, object] = {"dependencies": {"ms": "2"}, "devDependencies": {"jest": "29"}}
    first = planned(dependencies)
    assert planned({**dependencies, "version": "2.0.0", "scripts": {"x": "y"}}).fingerprint == first.fingerprint
    others = [
        planned({"dependencies": {"ms": "^2"}}),
        planned({**dependencies, "overrides": {"a": "1"}}),
        planned(dependencies, Options(groups=("dev",))),
        planned(dependencies, Options(scripts=False)),
        planned(dependencies, Options(added=("zod@3",))),
    ]
    assert len({first.fingerprint, *(item.fingerprint for item in others)}) == 1 + len(others)


def test_a_plan_has_all_that_an_install_needs() -> None:
    result = planned({}, source=b"require('ms')")
    assert result.environment == f"/sandbox/.qila/env/node/{result.fingerprint}"
    assert result.launch.env == {"QILA_NODE_ENV": result.environment}
    assert result.inventory_argv[-1] == result.environment
    assert result.links[0].directory == f"{result.environment}/node_modules"
    assert result.native_lock == "package-lock.json"


def test_without_packages_no_older_environment_is_seen() -> None:
    assert planned({}).launch.env == {"QILA_NODE_ENV": ""}


def test_ten_thousand_dependencies_are_read_with_their_lines() -> None:
    names = {f"package-{number}": "^1.0.0" for number in range(10_000)}
    document = json.dumps({"dependencies": names}, indent=0).encode()
    files = {"index.js": b"", "package.json": document}
    result = plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN))
    assert len(result.requirements) == 10_000
    line = next(item.origins[0].line for item in result.requirements if item.name == "package-9999")
    assert b'"package-9999"' in document.splitlines()[line - 1]


def test_a_lock_is_cut_to_what_is_installed() -> None:
    packages = {
        "": {"dependencies": {"ms": "2"}, "devDependencies": {"jest": "29"}},
        "node_modules/ms": {"version": "2.1.3"},
        "node_modules/jest": {"version": "29.7.0", "dev": True},
    }
    files = {
        "index.js": b"require('ms')",
        "package.json": b'{"dependencies": {"ms": "2"}, "devDependencies": {"jest": "29"}}',
        "package-lock.json": json.dumps({"lockfileVersion": 3, "packages": packages}).encode(),
    }
    locks = []
    for options in (Options(), Options(groups=("dev",))):
        result = plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN, options=options))
        content = next(file.content for file in result.staged if file.path == "package-lock.json")
        locks.append(sorted(json.loads(content)["packages"]))
    assert locks == [["", "node_modules/ms"], ["", "node_modules/jest", "node_modules/ms"]]


def test_hostile_numbers_cost_little() -> None:
    imports = "".join(f"require('zq-unknown-{number}')\n" for number in range(3_000)).encode()
    twice = b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b',"k99999":2}'
    files = {"index.js": imports, "tsconfig.json": b'{"compilerOptions":{"paths":{' + b'"@a*":["x"],' * 5_000 + b"}}}"}
    found = plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN))
    assert len(found.unknown) == 3_000
    with pytest.raises(ManifestError, match="'k99999' stands twice"):
        plan({**files, "package.json": twice}, [*files, "package.json"], Target(), Context(toolchain=TOOLCHAIN))


@pytest.mark.parametrize("name", ["../../../../home/evil", "@s/../../evil", "..", "a/b", "good\n", "/evil", ""])
def test_a_name_that_is_a_path_makes_no_link(name: str) -> None:
    lib = json.dumps({"x": {"name": "good"}, "name": name, "main": "i.js"}).encode()
    for root in (b'{"workspaces": ["lib"]}', b'{"dependencies": {"good": "file:./lib"}}'):
        source = f"require('good'); require({json.dumps(name)})".encode()
        files = {"package.json": root, "index.js": source, "lib/package.json": lib, "lib/i.js": b""}
        words = [
            word
            for step in plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN)).steps
            for word in step.argv
        ]
        places = [word for word in words if "/node_modules/" in word]
        assert all(place.endswith("/node_modules/good") for place in places)
        assert bool(places) == (b"file:" in root)


@pytest.mark.parametrize(
    ("name", "directory"), [("../x", "lib"), ("x", "../lib"), ("x", "a\nb"), ("x", "-l"), ("x", "/etc")]
)
def test_a_link_stays_inside(name: str, directory: str) -> None:
    with pytest.raises(ManifestError):
        _link_steps("/sandbox/.qila/env/node/f", {name: directory})


@pytest.mark.timeout(20)
def test_floods_of_text_cost_no_more_than_their_length() -> None:
    end = "\nError: Cannot find module 'a'\n{}\nNode.js v24.11.0\n"
    for flood in ("\n" * 64_000, " " * 64_000, " \n" * 32_000, "- \n" * 20_000, "requireStack: [\n" * 4_000):
        assert [item.module for item in explain_run(end.format(flood).encode()[: 2**16], [])] == ["a"]
    for flood in ('\\"' * 500_000, "/* " * 500_000, '"\\' * 500_000, "," * 500_000 + " " * 500_000):
        assert read_relaxed(flood.encode()) is None
        with pytest.raises(ManifestError):
            JsonText("package.json", flood.encode())
    targets = ["x"] * 1_000
    options = {"compilerOptions": {"paths": {f"a{'b' * number}*": targets for number in range(1_000)}}}
    compiler = Compilers({"tsconfig.json": json.dumps(options).encode()}).of("index.ts")
    assert len(compiler.paths_of("a" + "b" * 2_000)) <= 100


def test_strings_and_comments_that_nothing_ends() -> None:
    assert read_relaxed(b'{"a": "//\\"", /* , */ "b": [1, /* x */ ], } // end') == {"a": '//"', "b": [1]}
    assert read_relaxed(b'{"a": 1} /* open') == {"a": 1}
    assert read_relaxed(b'{"a": "open') is None
    with pytest.raises(ManifestError) as caught:
        JsonText("package.json", b'{\n"a": "open')
    assert caught.value.line == 2


def test_too_many_dependencies_are_refused() -> None:
    with pytest.raises(ManifestError, match="more than 20000 dependencies"):
        planned({"dependencies": {f"p{number}": "1" for number in range(20_001)}})


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000 + "require('x')",
        "{" * 20_000 + "import 'x'",
        "try{" * 2_000 + "require('x')" + "}catch{}" * 2_000,
        "try{}catch{" * 2_000 + "require('x')" + "}" * 2_000,
        "import('x')" + ".catch(a)" * 4_000,
        "import {A} from 'x'; let y: " + "A<" * 10_000,
        "<" * 20_000 + "import 'x'",
        "`${" * 10_000 + "require('x')",
    ],
)
def test_nesting_is_no_recursion(text: str) -> None:
    scan_source("a.tsx", text.encode())
    scan_source("a.js", text.encode())


def test_an_unknown_package_is_answered_with_what_was_meant() -> None:
    words = b"npm error code E404\nnpm error 404  The requested resource 'expresss@*' could not be found\n"
    failure = NodePlanner().explain_failure(StepKind.SOLVE, 1, words)
    assert (failure.reason, failure.hints) == (FailureReason.NOT_FOUND, ("expresss: express may be meant",))


def test_claims() -> None:
    planner = NodePlanner()
    assert planner.claims(["index.js", "main.py"], Target()) == 2
    assert planner.claims(["a.js"], Target()) == 1
    assert planner.claims(["main.py"], Target()) == 0
    assert planner.claims(["main.py", "index.js"], Target(program="main.py")) == 0
    assert planner.claims(["index.js"], Target(module="a")) == 0
    assert planner.claims(["package.json"], Target(script="x")) == 2
    assert planner.claims(["a.js"], Target(script="x")) == 0
    assert planner.claims(["types.d.ts"], Target()) == 0
