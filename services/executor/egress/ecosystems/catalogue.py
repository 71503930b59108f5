"""Every registry behind the mirror."""

from collections.abc import Callable

from services.executor.egress.ecosystems.go import GoModules
from services.executor.egress.ecosystems.maven import MavenCentral
from services.executor.egress.ecosystems.npm import Npm
from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi import Pypi
from services.executor.egress.mirror import Branch
from services.executor.egress.registries import Registries


def branches(registries: Registries, rules_of: Callable[[str], PackageRules]) -> tuple[Branch, ...]:
    """One branch for each ecosystem, with the operator's rules for it."""
    pypi, npm, go, maven = registries.pypi, registries.npm, registries.go, registries.maven
    return (
        Branch(ecosystem=Pypi(registry=pypi, rules=rules_of("pypi")), registry=pypi),
        Branch(ecosystem=Npm(registry=npm, rules=rules_of("npm")), registry=npm),
        Branch(ecosystem=GoModules(registry=go, rules=rules_of("go")), registry=go),
        Branch(ecosystem=MavenCentral(registry=maven, rules=rules_of("maven")), registry=maven),
    )
