import asyncio
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.executor.egress.ecosystems.port import Fetched, Page
from services.executor.egress.registries import Origin, Registry
from services.executor.egress.verdicts import TurnedAway

PROXY = "https://proxy.example"
DATABASE = "https://sum.example"
CENTRAL = "https://central.example"
GO = Registry(
    origins={
        "proxy": Origin(url=PROXY, host="proxy.example"),
        "sumdb": Origin(url=DATABASE, host="sum.example"),
    },
    redirects=(),
)
MAVEN = Registry(origins={"central": Origin(url=CENTRAL, host="central.example")}, redirects=())

NORMALISED_URL = re.compile(r"https://[a-z.]+(?:/[A-Za-z0-9_!@~-][A-Za-z0-9_!@.~+-]*)+")


@dataclass
class FakeSource:
    """A registry of pages by URL; `asked` keeps every question, `broken` has URLs that fail."""

    pages: Mapping[str, Fetched | bytes] = field(default_factory=dict)
    broken: Mapping[str, TurnedAway] = field(default_factory=dict)
    asked: list[Page] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def page(self, page: Page) -> Fetched | None:
        self.asked.append(page)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if page.url in self.broken:
            raise self.broken[page.url]
        found = self.pages.get(page.url)
        return Fetched(body=found) if isinstance(found, bytes) else found

    @property
    def urls(self) -> list[str]:
        return [page.url for page in self.asked]


@dataclass(frozen=True, kw_only=True)
class FakeRules:
    """Refuses `packages` and `releases` by name, and what was released after `before`."""

    packages: frozenset[str] = frozenset()
    releases: frozenset[tuple[str, str]] = frozenset()
    before: datetime.datetime | None = None

    @property
    def needs_release_times(self) -> bool:
        return self.before is not None

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        reason = self._reason(name, version, released)
        return None if reason is None else f"{name}: {reason}"

    def _reason(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        if name in self.packages:
            return "denied"
        if version is None:
            return None
        if (name, version) in self.releases:
            return "denied"
        if self.before is not None and (released is None or released >= self.before):
            return "too young" if released is not None else "age unknown"
        return None


NO_RULES = FakeRules()
