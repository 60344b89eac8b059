"""The errors of a build. Each message is one line that says what is wrong and what to do about it.

BuildError
├── SpecError                 a spec is missing, malformed, or has no such variant
├── ChoiceError               the variant is impossible for this model, machine or checkpoint
├── SourceError               the checkpoint is missing, damaged or not the one the spec names
│   └── UnknownArchitectureError  it is a model of a kind that is not known here
├── DiskSpaceError            the build would not fit on the disk
├── MemoryShortError          the build would not fit into this machine's memory
├── ToolError                 a tool that the build runs has failed; its output is in the log
├── ConversionError           the checkpoint cannot be turned into this kind of artefact
├── VerificationError         the artefact was made, and answers wrongly
├── LaunchError               Triton cannot be started in this way for these models
└── ArtefactError             a published artefact is damaged, or was written by another version
"""

from __future__ import annotations


class BuildError(Exception):
    """The build failed."""

    exit_code = 1


class SpecError(BuildError):
    """The spec or the variant cannot be used."""

    exit_code = 2


class ChoiceError(BuildError):
    """The variant cannot be built; the message says why and what would work."""

    exit_code = 2


class SourceError(BuildError):
    """The model's source cannot be used."""


class UnknownArchitectureError(SourceError):
    """The checkpoint's architecture is not known."""


class DiskSpaceError(BuildError):
    """There is not enough room on the disk."""


class MemoryShortError(BuildError):
    """There is not enough memory."""


class ToolError(BuildError):
    """A tool has failed."""


class ConversionError(BuildError):
    """The model cannot be converted."""


class VerificationError(BuildError):
    """The built model gives wrong answers."""


class LaunchError(BuildError):
    """These models cannot be served together, or not in this way."""

    exit_code = 2


class ArtefactError(BuildError):
    """A published artefact cannot be used."""
