"""The operator's package policy: one TOML file, read strictly; see docs/package-policy.md.

Whatever cannot be understood closes: a file that breaks a rule is an error, a version that cannot be compared is denied
by every rule for some versions and allowed by none, a release of unknown age is too young.
"""

import datetime
import functools
import hashlib
import json
import operator
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.executor.egress.ecosystems.no_rules import NO_RULES
from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.package_versions import order_of

MAX_FILE_BYTES = 4 << 20
MAX_RULES = 20_000
MAX_RULE = 256
MAX_AGE_DAYS = 3650
MAX_STARS = 4
_CACHED_NAMES = 4096

_KEYS = {"deny", "allow", "minimum_age_days", "age_exceptions"}
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NAMES = {
    "pypi": re.compile(r"[A-Za-z0-9*](?:[A-Za-z0-9._*-]*[A-Za-z0-9*])?"),
    "npm": re.compile(r"(?:@[a-z0-9~*-][a-z0-9._~*-]*/)?[A-Za-z0-9~*_-][A-Za-z0-9._~*-]*"),
    "go": re.compile(r"[A-Za-z0-9*][A-Za-z0-9._~*-]*(?:/[A-Za-z0-9._~*-]+)*"),
    "maven": re.compile(r"\*|[A-Za-z0-9_.*-]+:[A-Za-z0-9_.*-]+"),
}
_RULE = re.compile(r"(?P<name>[^=!<>\s]+)\s*(?P<clauses>[=!<>].*)?")
_CLAUSE = re.compile(r"\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<version>[0-9A-Za-z][0-9A-Za-z._+!-]*)\s*")
# PEP 440 alone has epochs.
_EXAMPLES = {
    "pypi": "requests<2.31",
    "npm": "@scope/name<1.2.3",
    "go": "example.org/module<v1.2.3",
    "maven": "group:artifact<1.2.3",
}


class InvalidPackagePolicy(Exception):
    """The package policy cannot be used."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class InvalidRule(Exception):
    """A rule that does not follow the grammar."""

    def __init__(self, *, text: str, problem: str) -> None:
        super().__init__(text, problem)
        self.text = text
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.text!r}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One comparison; `version` compares as its ecosystem's versions do."""

    operator: str
    version: Any

    def holds(self, version: Any) -> bool:
        """Whether a version of the same order satisfies it."""
        return _OPERATORS[self.operator](version, self.version)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A name, in which `*` stands for any characters, and the versions that are meant: all without a clause."""

    text: str
    name: str
    clauses: tuple[Clause, ...]

    def covers(self, version: Any | None, *, unknown: bool) -> bool:
        """Whether a version is meant; `unknown` answers for one that cannot be compared (None)."""
        if not self.clauses:
            return True
        return unknown if version is None else all(clause.holds(version) for clause in self.clauses)


def read_rule(ecosystem: str, text: str) -> Rule:
    """Read one rule, such as `requests<2.31`.

    Raises:
        InvalidRule: it does not follow the grammar.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None or len(text) > MAX_RULE or not _NAMES[ecosystem].fullmatch(match["name"]):
        raise InvalidRule(text=text[:MAX_RULE], problem=f"must be like {_EXAMPLES[ecosystem]!r}, or a name with *")
    if match["name"].count("*") > MAX_STARS:
        raise InvalidRule(text=text, problem=f"must have at most {MAX_STARS} *")
    words = match["clauses"].split(",") if match["clauses"] else []
    clauses = [_read_clause(ecosystem, text, clause) for clause in words]
    return Rule(text=text.strip(), name=normal_name(ecosystem, match["name"]), clauses=tuple(clauses))


def _read_clause(ecosystem: str, text: str, clause: str) -> Clause:
    match = _CLAUSE.fullmatch(clause)
    version = match and order_of(ecosystem, match["version"])
    if match is None or version is None:
        raise InvalidRule(text=text, problem=f"{clause.strip()!r} must be ==, !=, <, <=, > or >= and a whole version")
    return Clause(operator=match["operator"], version=version)


def normal_name(ecosystem: str, name: str) -> str:
    """The one spelling of a package's name: PyPI's is folded (PEP 503), the others' stay as they are."""
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem == "pypi" else name


class RuleSet:
    """Rules by name; the first rule that covers a package is its answer."""

    def __init__(self, rules: Sequence[Rule], *, any_case: bool = False) -> None:
        self._any_case = any_case
        self._exact: dict[str, list[tuple[int, Rule]]] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Rule]] = []
        for place, rule in enumerate(rules):
            name = self._folded(rule.name)
            if "*" in name:
                pattern = ".*".join(re.escape(part) for part in name.split("*"))
                self._patterns.append((place, re.compile(pattern), rule))
            else:
                self._exact.setdefault(name, []).append((place, rule))
        self._of_name = functools.lru_cache(maxsize=_CACHED_NAMES)(self._find)

    def of_name(self, name: str) -> tuple[Rule, ...]:
        """The rules for a package, whatever its version, in the file's order."""
        return self._of_name(self._folded(name))

    def _find(self, name: str) -> tuple[Rule, ...]:
        found = [(place, rule) for place, pattern, rule in self._patterns if pattern.fullmatch(name)]
        return tuple(rule for _, rule in sorted(found + self._exact.get(name, []), key=lambda pair: pair[0]))

    def _folded(self, name: str) -> str:
        return name.casefold() if self._any_case else name


class OperatorRules:
    """`PackageRules` of one ecosystem."""

    def __init__(
        self,
        ecosystem: str,
        *,
        deny: Sequence[Rule] = (),
        allow: Sequence[Rule] | None = None,
        minimum_age_days: int = 0,
        age_exceptions: Sequence[Rule] = (),
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._ecosystem = ecosystem
        # A module path in another case may lead to the same code.
        self._deny = RuleSet(deny, any_case=ecosystem == "go")
        self._allow = None if allow is None else RuleSet(allow)
        self._minimum_age = datetime.timedelta(days=minimum_age_days)
        self._age_exceptions = RuleSet(age_exceptions)
        self._now = now

    @property
    def needs_release_times(self) -> bool:
        """Whether the rules ask how old a release is."""
        return bool(self._minimum_age)

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        """Why a package or a release is refused, as `NAME: REASON`; see `PackageRules`."""
        reason = self._refusal_of_all(name) if version is None else self._refusal_of_one(name, version, released)
        return None if reason is None else f"{name}: {reason}"

    def _refusal_of_all(self, name: str) -> str | None:
        for rule in self._deny.of_name(name):
            if not rule.clauses:
                return f"denied by {rule.text!r}"
        if self._allow is not None and not self._allow.of_name(name):
            return "not in the list of what is allowed"
        return None

    def _refusal_of_one(self, name: str, version: str, released: datetime.datetime | None) -> str | None:
        order = order_of(self._ecosystem, version)
        for rule in self._deny.of_name(name):
            if rule.covers(order, unknown=True):
                return f"denied by {rule.text!r}"
        if self._allow is not None and not _covered(self._allow, name, order):
            return "not in the list of what is allowed"
        if not self._minimum_age or _covered(self._age_exceptions, name, order):
            return None
        days = self._minimum_age.days
        if released is None:
            return f"released at an unknown time, and must be {days} days old"
        if released.tzinfo is None:
            released = released.replace(tzinfo=datetime.UTC)
        return None if self._now() - released >= self._minimum_age else f"released less than {days} days ago"


def _covered(rules: RuleSet, name: str, order: Any | None) -> bool:
    return any(rule.covers(order, unknown=False) for rule in rules.of_name(name))


@dataclass(frozen=True, kw_only=True)
class PackagePolicy:
    """The rules of the ecosystems that have some, and the digest of all that they say.

    The order of the file's lists and its comments do not count in the digest; it is empty if there is no policy.
    """

    rules: Mapping[str, PackageRules]
    digest: str

    def rules_of(self, ecosystem: str) -> PackageRules:
        """The rules of any ecosystem; they refuse nothing if the file has none for it."""
        return self.rules.get(ecosystem, NO_RULES)


NO_POLICY = PackagePolicy(rules={}, digest="")


def load_package_policy(path: Path) -> PackagePolicy:
    """Read and check a package policy.

    Raises:
        InvalidPackagePolicy: it cannot be read, says nothing, or breaks a rule.
    """
    return read_package_policy(read_file(path), path=path)


def read_file(path: Path) -> bytes:
    """The bytes of a policy; raises as `load_package_policy`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidPackagePolicy(path=path, problem=f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidPackagePolicy(path=path, problem=f"must be at most {MAX_FILE_BYTES} bytes")
    return content


def read_package_policy(content: bytes, *, path: Path) -> PackagePolicy:
    """Read and check the bytes of the policy that `path` had; raises as `load_package_policy`."""
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidPackagePolicy(path=path, problem=f"cannot be read as TOML: {error}") from error
    if not document:
        problem = f"says nothing; give it one of {', '.join(_NAMES)}, or unset QILA_PACKAGE_POLICY"
        raise InvalidPackagePolicy(path=path, problem=problem)
    _check_keys(path, "the file", document, set(_NAMES))
    rules = {name: _read_table(path, name, table) for name, table in document.items()}
    canonical = json.dumps(_sorted(document), sort_keys=True).encode()
    return PackagePolicy(rules=rules, digest=hashlib.sha256(canonical).hexdigest())


def _read_table(path: Path, ecosystem: str, table: object) -> PackageRules:
    if not isinstance(table, dict) or not table:
        raise InvalidPackagePolicy(path=path, problem=f"[{ecosystem}] must be a table with rules")
    _check_keys(path, f"[{ecosystem}]", table, _KEYS)
    days = table.get("minimum_age_days", 0)
    if "minimum_age_days" in table and (type(days) is not int or not 1 <= days <= MAX_AGE_DAYS):
        problem = f"{ecosystem}.minimum_age_days must be a whole number of days, 1 to {MAX_AGE_DAYS}"
        raise InvalidPackagePolicy(path=path, problem=problem)
    if "age_exceptions" in table and not days:
        problem = f"{ecosystem}.age_exceptions says nothing without minimum_age_days"
        raise InvalidPackagePolicy(path=path, problem=problem)
    return OperatorRules(
        ecosystem,
        deny=_read_rules(path, ecosystem, "deny", table.get("deny", [])),
        allow=_read_rules(path, ecosystem, "allow", table["allow"]) if "allow" in table else None,
        minimum_age_days=days,
        age_exceptions=_read_rules(path, ecosystem, "age_exceptions", table.get("age_exceptions", [])),
    )


def _read_rules(path: Path, ecosystem: str, key: str, texts: object) -> list[Rule]:
    if not isinstance(texts, list) or len(texts) > MAX_RULES or not all(isinstance(text, str) for text in texts):
        raise InvalidPackagePolicy(path=path, problem=f"{ecosystem}.{key} must be a list of at most {MAX_RULES} texts")
    try:
        return [read_rule(ecosystem, text) for text in texts]
    except InvalidRule as error:
        raise InvalidPackagePolicy(path=path, problem=f"{ecosystem}.{key}: {error}") from error


def _check_keys(path: Path, where: str, table: Mapping[str, object], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        problem = f"{where} has {unknown[0]!r}, which means nothing; it may have {', '.join(sorted(known))}"
        raise InvalidPackagePolicy(path=path, problem=problem)


def _sorted(document: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The document with its lists in one order: what they say does not depend on theirs."""
    return {
        name: {key: sorted(value) if isinstance(value, list) else value for key, value in table.items()}
        for name, table in document.items()
    }
