"""POMs that Qila stages: what others say of dependencies, and nothing that would be run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.java.coordinates import Coordinate
    from services.resolver.java.declared import Declaration

OWN = "qila:program:1"


def write_pom(
    identity: str,
    dependencies: Iterable[Declaration],
    managed: Iterable[Declaration] = (),
    parent: str = "",
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """A POM with the id `group:artifact:version`; `parent` is the id of the one that it continues, or empty."""
    lines = ["<project>", "  <modelVersion>4.0.0</modelVersion>"]
    if parent:
        # Without a relative path, so that nothing but the staged POMs and the repository is looked at.
        lines += ["  <parent>", *_id(parent, "    "), "    <relativePath/>", "  </parent>"]
    lines += [*_id(identity, "  "), "  <packaging>pom</packaging>"]
    if properties:
        lines.append("  <properties>")
        lines += [f"    <{name}>{escape(value)}</{name}>" for name, value in sorted(properties.items())]
        lines.append("  </properties>")
    rows = [line for item in managed for line in _dependency(item, "      ")]
    if rows:
        lines += ["  <dependencyManagement>", "    <dependencies>", *rows]
        lines += ["    </dependencies>", "  </dependencyManagement>"]
    rows = [line for item in dependencies for line in _dependency(item, "    ")]
    if rows:
        lines += ["  <dependencies>", *rows, "  </dependencies>"]
    return "\n".join([*lines, "</project>", ""]).encode()


def with_dependencies(pom: bytes, more: Iterable[Declaration]) -> bytes:
    """A POM that was written here, with further dependencies behind its own."""
    rows = [line for item in more for line in _dependency(item, "    ")]
    text = pom.decode().removesuffix("</project>\n")
    if text.endswith("\n  </dependencies>\n"):
        text = text.removesuffix("  </dependencies>\n")
    else:
        text += "  <dependencies>\n"
    return "\n".join([text + rows[0], *rows[1:], "  </dependencies>", "</project>", ""]).encode()


def _id(identity: str, indent: str) -> list[str]:
    names = ("groupId", "artifactId", "version")
    return [_element(name, value, indent) for name, value in zip(names, identity.split(":"), strict=True)]


def _dependency(item: Declaration, indent: str) -> list[str]:
    inner = indent + "  "
    lines = [f"{indent}<dependency>", *_coordinate(item.coordinate, inner)]
    if item.scope != "compile":
        lines.append(_element("scope", item.scope, inner))
    if item.optional:
        lines.append(_element("optional", "true", inner))
    if item.exclusions:
        lines.append(f"{inner}<exclusions>")
        for group, artifact in item.exclusions:
            lines += [f"{inner}  <exclusion>", _element("groupId", group, inner + "    ")]
            lines += [_element("artifactId", artifact, inner + "    "), f"{inner}  </exclusion>"]
        lines.append(f"{inner}</exclusions>")
    return [*lines, f"{indent}</dependency>"]


def _coordinate(coordinate: Coordinate, indent: str) -> list[str]:
    lines = [
        _element("groupId", coordinate.group, indent),
        _element("artifactId", coordinate.artifact, indent),
    ]
    if coordinate.version:
        lines.append(_element("version", coordinate.version, indent))
    if coordinate.extension != "jar":
        lines.append(_element("type", coordinate.extension, indent))
    if coordinate.classifier:
        lines.append(_element("classifier", coordinate.classifier, indent))
    return lines


def _element(name: str, value: str, indent: str) -> str:
    return f"{indent}<{name}>{escape(value)}</{name}>"
