"""What a Gradle build declares: read from its scripts where that is possible, else as the sandbox's Gradle says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.gradle import GradleWorkspace
from services.resolver.java.gradle_answer import declared_by
from services.resolver.java.gradle_dependencies import UnreadableBuildError
from services.resolver.java.gradle_question import UnansweredError, question_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.java.declared import Declared
    from services.resolver.model import Context


def read_build(
    files: Mapping[str, bytes], script: str, near: str, release: int, context: Context, *, tests: bool
) -> Declared:
    """What the build with a script declares for what lies in the directory `near`.

    Raises UnansweredError if Gradle has to be asked first; ManifestError, with the line, if it cannot be; LockError.
    """
    workspace = GradleWorkspace(files, release)
    try:
        return workspace.read(script, near, tests=tests)
    except UnreadableBuildError as error:
        try:
            question = question_of(files, workspace.root_of(script), context, error)
        except ManifestError as refusal:
            return _read_partly(workspace, script, near, refusal, tests=tests)
    answer = context.answers.get(question.key)
    if answer is None:
        raise UnansweredError(question=question)
    return declared_by(workspace, question, answer, near, tests=tests)


def _read_partly(
    workspace: GradleWorkspace, script: str, near: str, refusal: ManifestError, *, tests: bool
) -> Declared:
    """As far as it can be read, if only blocks beside the dependencies themselves cannot be; else it is refused."""
    try:
        return workspace.read(script, near, tests=tests, strict=False)
    except UnreadableBuildError:
        raise refusal from None
