"""The errors of a build. Each message is one line that says what is wrong and what to do about it.

BuildError
├── SpecError          a spec is missing, malformed, or has no such variant
├── SourceError        the checkpoint is missing or is not the file that the spec names
├── DiskSpaceError     the build would not fit on the disk
├── ConversionError    the checkpoint cannot be turned into this kind of artefact
├── VerificationError  the artefact was made, and answers wrongly
├── LaunchError        Triton cannot be started in this way for these models
└── ArtefactError      a published artefact is damaged, or was written by another version
"""

from __future__ import annotations


class BuildError(Exception):
    """The build failed."""

    exit_code = 1


class SpecError(BuildError):
    """The spec or the variant cannot be used."""

    exit_code = 2


class SourceError(BuildError):
    """The model's source cannot be used."""


class DiskSpaceError(BuildError):
    """There is not enough room on the disk."""


class ConversionError(BuildError):
    """The model cannot be converted."""


class VerificationError(BuildError):
    """The built model gives wrong answers."""


class LaunchError(BuildError):
    """These models cannot be served together, or not in this way."""

    exit_code = 2


class ArtefactError(BuildError):
    """A published artefact cannot be used."""
