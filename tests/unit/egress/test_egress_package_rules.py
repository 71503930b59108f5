import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.package_rules import (
    NO_POLICY,
    InvalidPackagePolicy,
    InvalidRule,
    OperatorRules,
    PackagePolicy,
    load_package_policy,
    read_package_policy,
    read_rule,
)

FILE = Path("/etc/qila/packages.toml")
NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
OLD = NOW - datetime.timedelta(days=8)
YOUNG = NOW - datetime.timedelta(days=6)


def policy(text: str) -> PackagePolicy:
    return read_package_policy(text.encode(), path=FILE)


def rules(ecosystem: str = "pypi", *, deny: list[str] | None = None, allow: list[str] | None = None) -> OperatorRules:
    return OperatorRules(
        ecosystem,
        deny=[read_rule(ecosystem, text) for text in deny or []],
        allow=None if allow is None else [read_rule(ecosystem, text) for text in allow],
        now=lambda: NOW,
    )


def aged(*exceptions: str) -> OperatorRules:
    read = [read_rule("pypi", text) for text in exceptions]
    return OperatorRules("pypi", minimum_age_days=7, age_exceptions=read, now=lambda: NOW)


@pytest.mark.parametrize(
    ("ecosystem", "rule", "name", "refused", "let_through"),
    [
        ("pypi", "requests<2.31", "requests", ["2.30.9", "2.31rc1", "0", "nonsense", ""], ["2.31", "2.31.post1", "3"]),
        ("pypi", "A_b.C == 1.0 , >= 0", "a-b-c", ["1", "1.0.0"], ["1.0.1", "1.0+local"]),
        ("pypi", "evil-*>=1,<2", "evil-twin", ["1.5"], ["2", "0.9"]),
        ("npm", "@evil/*<1.2", "@evil/x", ["1.1.9", "1.2.0-rc.1", "x"], ["1.2.0", "1.10.0", "1.2.0+build"]),
        ("npm", "left-pad!=1.3.0", "left-pad", ["1.2.0", "1.3.1"], ["1.3.0"]),
        ("go", "example.org/m<v1.10.0", "example.org/m", ["v1.9.0", "v1.10.0-0.20210101000000-abcdefabcdef"],
         ["v1.10.0", "v2.0.0+incompatible"]),
        ("maven", "org.log:log4j-core<2.17.1", "org.log:log4j-core", ["2.17.0", "2.17.1-rc1", "2.9", "1.2-beta"],
         ["2.17.1", "2.17.1.ga", "2.17.1-jre", "2.20", "10"]),
        ("maven", "org.evil:*>=0", "org.evil:any", ["1", "1-SNAPSHOT"], []),
    ],
)  # fmt: skip
def test_a_rule_means_these_versions(
    ecosystem: str, rule: str, name: str, refused: list[str], let_through: list[str]
) -> None:
    subject = rules(ecosystem, deny=[rule])
    assert subject.refusal(name, None, None) is None
    for version in refused:
        assert subject.refusal(name, version, None) == f"{name}: denied by {rule!r}", version
    for version in let_through:
        assert subject.refusal(name, version, None) is None, version
    assert subject.refusal(f"{name}x" if "*" not in rule else "other", "1.0", None) is None


def test_a_name_alone_means_all_of_it() -> None:
    subject = rules(deny=["Left_Pad", "ev*l"])
    for name in ("left-pad", "evil", "evxl", "evl"):
        assert subject.refusal(name, None, None) is not None
        assert subject.refusal(name, "1.0", OLD) is not None
    for name in ("left-pads", "xleft-pad", "evils", "devil"):
        assert subject.refusal(name, None, None) is None


def test_deny_wins_over_allow() -> None:
    subject = rules(allow=["requests", "numpy>=2"], deny=["requests==2.0"])
    assert subject.refusal("requests", "1.0", None) is None
    assert subject.refusal("requests", "2.0", None) == "requests: denied by 'requests==2.0'"
    assert subject.refusal("numpy", "2.0", None) is None
    for version in ("1.9", "nonsense"):
        assert subject.refusal("numpy", version, None) == "numpy: not in the list of what is allowed"
    assert subject.refusal("other", None, None) == "other: not in the list of what is allowed"


def test_an_empty_allow_list_allows_nothing() -> None:
    subject = policy("[pypi]\nallow = []\n").rules["pypi"]
    assert subject.refusal("requests", None, None) is not None
    assert subject.refusal("requests", "1.0", OLD) is not None


def test_a_module_path_in_another_case_is_denied_but_not_allowed() -> None:
    denied, allowed = rules("go", deny=["example.org/Evil"]), rules("go", allow=["example.org/Good"])
    assert denied.refusal("example.org/eVIL", None, None) is not None
    assert allowed.refusal("example.org/good", None, None) is not None
    assert allowed.refusal("example.org/Good", None, None) is None


@pytest.mark.parametrize(
    ("released", "refused"),
    [
        (OLD, False), (NOW - datetime.timedelta(days=7), False), (YOUNG, True),
        (NOW + datetime.timedelta(days=1), True), (None, True),
        (OLD.replace(tzinfo=None), False), (YOUNG.replace(tzinfo=None), True),
    ],
)  # fmt: skip
def test_a_release_must_be_old_enough(released: datetime.datetime | None, refused: bool) -> None:  # noqa: FBT001  # data
    subject = aged()
    assert subject.needs_release_times
    assert subject.refusal("demo", None, None) is None
    assert (subject.refusal("demo", "1.0", released) is not None) is refused


def test_exceptions_to_the_age() -> None:
    subject = aged("our-*", "demo==1.1")
    assert subject.refusal("our-tool", "1.0", None) is None
    assert subject.refusal("demo", "1.1", YOUNG) is None
    assert subject.refusal("demo", "1.0", YOUNG) == "demo: released less than 7 days ago"
    assert subject.refusal("demo", "nonsense", YOUNG) is not None
    assert subject.refusal("demo", "1.0", None) == "demo: released at an unknown time, and must be 7 days old"


def test_without_a_policy_nothing_is_refused() -> None:
    assert policy("[npm]\ndeny = ['x']").rules.keys() == {"npm"}
    for subject in map(NO_POLICY.rules_of, NAMES):
        assert not subject.needs_release_times
        assert subject.refusal("anything", None, None) is None
        assert subject.refusal("anything", "nonsense", None) is None


BROKEN = {
    "": "says nothing",
    "# only a comment": "says nothing",
    "[pypi]": "must be a table with rules",
    "pypi = 1": "must be a table with rules",
    "[pypi": "cannot be read as TOML",
    "\x00": "cannot be read as TOML",
    "[cargo]\ndeny = []": "the file has 'cargo', which means nothing; it may have go, maven, npm, pypi",
    "[pypi]\nDeny = []": "[pypi] has 'Deny', which means nothing",
    "[pypi]\ndeny = 'x'": "pypi.deny must be a list",
    "[pypi]\ndeny = [1]": "pypi.deny must be a list",
    "[pypi]\nallow = ['x', '']": "pypi.allow: '': must be like",
    "[pypi]\nminimum_age_days = 0": "must be a whole number of days, 1 to 3650",
    "[pypi]\nminimum_age_days = true": "must be a whole number of days",
    "[pypi]\nminimum_age_days = 1.5": "must be a whole number of days",
    "[npm]\nage_exceptions = ['x']": "npm.age_exceptions says nothing without minimum_age_days",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_one_clear_error(text: str) -> None:
    with pytest.raises(InvalidPackagePolicy) as caught:
        policy(text)
    assert str(caught.value).startswith(f"{FILE}: ")
    assert BROKEN[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ecosystem", "rule"),
    [
        ("pypi", "requests<"), ("pypi", "requests~=2"), ("pypi", "requests<2,"), ("pypi", "requests,<2"),
        ("pypi", "requests=2"), ("pypi", "requests<2 or >3"), ("pypi", "requests<nonsense"), ("pypi", "requests==2.*"),
        ("pypi", "a/b"), ("pypi", "-x"), ("pypi", "a b"), ("pypi", "r\u0435quests"), ("pypi", "x" * 300),
        ("pypi", "a*b*c*d*e*f"), ("pypi", "requests[socks]"), ("npm", "@evil"), ("npm", "@a/b/c"),
        ("npm", "x<1.2.3.4"), ("go", "/m"), ("go", "m//n"), ("go", "m<vX"), ("maven", "log4j"), ("maven", "a:b:c"),
        ("maven", "a:b<!"),
    ],
)  # fmt: skip
def test_what_is_no_rule(ecosystem: str, rule: str) -> None:
    with pytest.raises(InvalidRule):
        read_rule(ecosystem, rule)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackagePolicy, match="cannot be read: No such file"):
        load_package_policy(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(InvalidPackagePolicy, match="must be at most"):
        load_package_policy(tmp_path / "large.toml")


def test_the_digest_is_of_what_the_file_says() -> None:
    first = policy("[pypi]\ndeny = ['a', 'b']\n[npm]\ndeny = ['c']\n")
    same = policy("# comment\n[npm]\ndeny = ['c']\n[pypi]\ndeny = [ 'b', 'a' ]\n")
    other = policy("[pypi]\ndeny = ['a', 'b']\n[npm]\ndeny = ['d']\n")
    assert first.digest == same.digest != other.digest
    assert NO_POLICY.digest == ""


NAMES = {
    "pypi": st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,20}", fullmatch=True),
    "npm": st.from_regex(r"(@[a-z]{1,5}/)?[a-z][a-z0-9._-]{0,20}", fullmatch=True),
    "go": st.from_regex(r"[a-z]{1,9}\.org(/[a-z0-9]{1,9}){1,3}", fullmatch=True),
    "maven": st.from_regex(r"[a-z.]{1,9}:[a-z-]{1,9}", fullmatch=True),
}
NUMBERS = st.tuples(*[st.integers(0, 30)] * 3)
OPERATORS = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


@given(data=st.data(), bound=NUMBERS, version=NUMBERS, operator=st.sampled_from(sorted(OPERATORS)))
@pytest.mark.parametrize("ecosystem", sorted(NAMES))
def test_plain_versions_compare_as_numbers_everywhere(
    ecosystem: str, data: Any, bound: tuple[int, ...], version: tuple[int, ...], operator: str
) -> None:
    name = data.draw(NAMES[ecosystem])
    mark = "v" if ecosystem == "go" else ""
    rule = f"{name} {operator} {mark}{'.'.join(map(str, bound))}"
    refusal = rules(ecosystem, deny=[rule]).refusal(name, mark + ".".join(map(str, version)), None)
    assert (refusal is not None) is OPERATORS[operator](version, bound)


@given(text=st.text(alphabet="aA0@/:.*-_=<>!, \t1v\x00é", max_size=20), data=st.data())
@pytest.mark.parametrize("ecosystem", sorted(NAMES))
def test_any_text_is_a_rule_or_an_error_and_never_denies_a_name_without_its_characters(
    ecosystem: str, text: str, data: Any
) -> None:
    try:
        rule = read_rule(ecosystem, text)
    except InvalidRule:
        return
    name = data.draw(NAMES[ecosystem])
    subject = OperatorRules(ecosystem, deny=[rule])
    if subject.refusal(name, "1.0.0", None) is not None:
        literal = rule.name.replace("*", "").casefold()
        assert all(character in name.casefold() for character in literal)
