"""The errors of a build. Each message is one line that says what is wrong and what to do about it.

BuildError
├── SpecError          a spec is missing, malformed, or has no such variant
├── SourceError        the checkpoint is missing or is not the file that the spec names
│   └── UnknownArchitectureError  no family here has the checkpoint's architecture
├── ChoiceError        this family cannot be built that way, or not for that GPU
├── DiskSpaceError     the build would not fit on the disk
├── ConversionError    the checkpoint cannot be turned into this kind of artefact
├── VerificationError  the artefact was made, and answers wrongly
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


class UnknownArchitectureError(SourceError):
    """No family here has the checkpoint's architecture."""


class ChoiceError(BuildError):
    """The family, the variant and the GPU do not go together."""

    exit_code = 2


class DiskSpaceError(BuildError):
    """There is not enough room on the disk."""


class ConversionError(BuildError):
    """The model cannot be converted."""


class VerificationError(BuildError):
    """The built model gives wrong answers."""


class ArtefactError(BuildError):
    """A published artefact cannot be used."""
