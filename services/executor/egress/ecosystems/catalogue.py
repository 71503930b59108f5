"""Every registry behind the mirror."""

from collections.abc import Callable

from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi import Pypi
from services.executor.egress.mirror import Branch
from services.executor.egress.registries import Registries


def branches(registries: Registries, rules_of: Callable[[str], PackageRules]) -> tuple[Branch, ...]:
    """One branch for each ecosystem, with the operator's rules for it."""
    return (Branch(ecosystem=Pypi(registry=registries.pypi, rules=rules_of("pypi")), registry=registries.pypi),)
