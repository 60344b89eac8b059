"""What a model spec (specs/*.toml, or a user's own) says: source, tokens, limits and variants.

Reads and checks the files; knows nothing of how a model is built or what a family can do.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

import msgspec

from build_engines.artefacts.artefact import is_safe_name
from build_engines.checkpoints.architecture import Architecture
from build_engines.errors import SpecError
from build_engines.variants import (
    KindOf,
    Lora,
    LoraOptions,
    Speculative,
    Variant,
    VariantLimits,
    VariantOptions,
    implicit_options,
    resolve_variant,
)

SPECS_DIR = Path(__file__).parent / "specs"

Positive = Annotated[int, msgspec.Meta(gt=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
TokenId = Annotated[int, msgspec.Meta(ge=0)]
# The names that the frontend has (frontend/text): another one would be found out by serving it
ToolParser = Literal["hermes", "llama3_json", "llama3_pythonic", "mistral", "chatglm3", "glm4",
                     "glm45", "gemma3", "deepseek", "harmony"]  # fmt: skip
ReasoningParser = Literal["deepseek_r1", "qwen3", "glm45", "gpt_oss"]
# What a spec of an embedding model does not have
_GENERATOR_FIELDS = (
    *("family", "chat_template", "tool_parser", "reasoning_parser", "architecture"),
    *("limits", "lora", "speculative"),
)


class PackageSource(msgspec.Struct, frozen=True, kw_only=True):
    """Weights in an installed Python package; `file` is relative to site-packages."""

    package: str
    version: str
    file: str
    sha256: Sha256


class HubSource(msgspec.Struct, frozen=True, kw_only=True):
    """A repository of the Hugging Face hub; with `file`, one GGUF file of it."""

    hf: str
    revision: str = "main"
    file: str | None = None
    with_code: bool = False  # its makers' Python files too: NVIDIA's converters run them


class PathSource(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's folder or a GGUF file on this machine."""

    path: str


Source = PackageSource | HubSource | PathSource


class TokenOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token ids with a meaning, see `artefact.SpecialTokens`; None: as the checkpoint says."""

    bos_id: TokenId | None = None
    eos_ids: list[TokenId] | None = None
    pad_id: TokenId | None = None
    fill_in_middle: str | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation, how its greedy answer begins, and the log-probs of the answer's tokens."""

    messages: list[dict[str, str]]
    answer: str
    log_probs: list[float]


class EmbeddingVerification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts, how the first one's vector begins, and its cosine with each of them."""

    texts: list[str]
    values: list[float]
    cosines: list[float]


class _SourceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hf: str | None = None
    revision: str | None = None
    package: str | None = None
    version: str | None = None
    file: str | None = None
    sha256: Sha256 | None = None
    path: str | None = None
    with_code: bool | None = None


class _SpecFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    kind: Literal["embedding"] | None = None
    family: str | None = None
    num_parameters: Positive | None = None
    max_seq_len: Positive | None = None
    chat_template: str | None = None
    tool_parser: ToolParser | None = None
    reasoning_parser: ReasoningParser | None = None
    default_variant: str | None = None
    source: _SourceTable | None = None
    tokens: TokenOptions = TokenOptions()
    architecture: dict[str, int | str | bool] | None = None
    limits: VariantLimits = VariantLimits()
    lora: LoraOptions | None = None
    speculative: Speculative | None = None
    variants: dict[str, VariantOptions] = {}


class _GeneratorSpecFile(_SpecFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify: Verification | None = None


class _EmbeddingSpecFile(_SpecFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify: EmbeddingVerification


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A model that can be built. What is None is taken from the checkpoint."""

    name: str
    is_embedding: bool = False
    family: str | None = None  # a key of families.FAMILIES
    num_parameters: int | None = None
    max_seq_len: int | None = None  # tokens, prompt and output together
    chat_template: str | None = None  # a file of chat_templates/, without .jinja
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    default_variant: str | None = None
    source: Source | None = None  # None: to be given by --checkpoint
    tokens: TokenOptions = field(default_factory=TokenOptions)
    architecture: Architecture | None = None  # for planning before the checkpoint is there
    limits: VariantLimits = field(default_factory=VariantLimits)
    lora: Lora | None = None
    speculative: Speculative | None = None
    verify: Verification | EmbeddingVerification | None = None
    variants: dict[str, VariantOptions] = field(default_factory=dict)

    def variant(self, name: str, *, kind_of: KindOf | None = None) -> Variant:
        """The variant `name`, with what the whole spec says filled in.

        One that is not listed is taken for the quantization of its name; `kind_of` tells which of
        the GPU kinds the family has it in. Raises SpecError with the names there are.
        """
        options = self.variants.get(name) or implicit_options(name)
        if options is None or (self.is_embedding and name not in self.variants):
            names = ", ".join(self.variants) or "one of its quantizations, as int4_awq or gguf"
            raise SpecError(f"{self.name} has no variant {name}: choose one of {names}")
        return resolve_variant(
            name,
            options,
            limits=self.limits,
            lora=self.lora,
            speculative=self.speculative,
            kind="embedding" if self.is_embedding else None,
            kind_of=kind_of,
        )


def spec_names() -> list[str]:
    """Names of the models that can be built."""
    return sorted(path.stem for path in SPECS_DIR.glob("*.toml"))


def buildable_variants(name: str) -> list[str]:
    """The variants that a spec lists; none for a model without a spec."""
    return list(load_spec(name).variants) if name in spec_names() else []


def load_spec(name: str) -> Spec:
    """The spec of a model. Raises SpecError, naming the models there are."""
    if name not in spec_names():
        raise SpecError(
            f"there is no model {name}: choose one of {', '.join(spec_names())}, or name your own "
            "with --spec or --checkpoint"
        )
    return read_spec(SPECS_DIR / f"{name}.toml")


def read_spec(path: Path) -> Spec:
    """Reads a spec file. Raises SpecError with the file and the key that is wrong."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        is_embedding = raw.get("kind") == "embedding"
        parsed = msgspec.convert(raw, _EmbeddingSpecFile if is_embedding else _GeneratorSpecFile)
        return _to_spec(parsed, path.parent)
    except OSError as exc:
        raise SpecError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path}: not TOML: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise SpecError(f"{path}: {str(exc).replace('$.', '')}") from exc
    except SpecError as exc:
        raise SpecError(f"{path}: {exc}") from exc


def _to_spec(parsed: _SpecFile, folder: Path) -> Spec:
    for name in (parsed.name, *parsed.variants):
        if not is_safe_name(name):
            raise SpecError(f"{name!r} cannot be the name of a model or a variant")
    values = msgspec.structs.asdict(parsed)
    is_embedding = values.pop("kind") == "embedding"
    foreign = [name for name in _GENERATOR_FIELDS if values[name] not in (None, VariantLimits())]
    if is_embedding and foreign:
        raise SpecError(f"an embedding model has no {', '.join(foreign)}: leave it out")
    architecture = values.pop("architecture")
    source, lora = values.pop("source"), values.pop("lora")
    if lora is not None and lora.max_rank is None:
        raise SpecError("lora.max_rank is missing")
    spec = Spec(
        **values,
        is_embedding=is_embedding,
        source=None if source is None else _to_source(source, folder),
        lora=None if lora is None else lora.over(None),
        architecture=None if architecture is None else _to_architecture(architecture),
    )
    for name in spec.variants:
        spec.variant(name)
    _check_default(spec)
    if spec.tokens.eos_ids is not None and not spec.tokens.eos_ids:
        raise SpecError("tokens.eos_ids is empty; the first of them ends an answer")
    _check_fill_in_middle(spec.tokens.fill_in_middle)
    return spec


def _to_architecture(table: dict[str, int | str | bool]) -> Architecture:
    unknown = table.keys() - {known.name for known in fields(Architecture)}
    if unknown:
        raise SpecError(f"[architecture] has no {', '.join(sorted(unknown))}")
    return msgspec.convert(table, Architecture)


def _check_default(spec: Spec) -> None:
    default = spec.default_variant
    if default is None or default in spec.variants:
        return
    if spec.is_embedding or implicit_options(default) is None:
        raise SpecError(f"default_variant {default} is not among its variants")


def _to_source(table: _SourceTable, folder: Path) -> Source:
    """Exactly one kind of source, with the keys of that kind; paths are relative to `folder`."""
    given = {key: value for key, value in msgspec.structs.asdict(table).items() if value}
    kinds: dict[str, type[Source]] = {"hf": HubSource, "package": PackageSource, "path": PathSource}
    named = [key for key in kinds if key in given]
    if len(named) != 1:
        raise SpecError("[source] must have exactly one of hf, package and path")
    kind = kinds[named[0]]
    unknown = given.keys() - {known.name for known in msgspec.structs.fields(kind)}
    if unknown:
        raise SpecError(f"[source] with {named[0]} has no {', '.join(sorted(unknown))}")
    if table.path is not None:
        given["path"] = str(folder / Path(table.path).expanduser())
    return msgspec.convert(given, kind)


def _check_fill_in_middle(form: str | None) -> None:
    if form is None:
        return
    problem = SpecError("tokens.fill_in_middle must have {prefix} and {suffix} alone")
    try:
        names = [name for _, name, _, _ in Formatter().parse(form) if name is not None]
    except ValueError as exc:
        raise problem from exc
    if sorted(names) != ["prefix", "suffix"]:
        raise problem
