"""Every registry behind the mirror."""

from collections.abc import Mapping

from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi import Pypi
from services.executor.egress.mirror import Branch
from services.executor.egress.registries import Registries


def branches(registries: Registries, rules: Mapping[str, PackageRules]) -> tuple[Branch, ...]:
    """One branch for each ecosystem, with the operator's rules by its prefix."""
    return (Branch(ecosystem=Pypi(registry=registries.pypi, rules=rules["pypi"]), registry=registries.pypi),)
