"""The package rules of an operator who has none."""

import datetime


class NoRules:
    """Refuses nothing."""

    @property
    def needs_release_times(self) -> bool:
        """No."""
        return False

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:  # noqa: ARG002  # as PackageRules says
        """None."""
        return None


NO_RULES = NoRules()
