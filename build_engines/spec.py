"""What a model spec (specs/*.toml) says: the model's source, limits and variants.

Reads and checks the files; knows nothing of how a model is built.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Annotated

import msgspec

from build_engines.artefact import SpecialTokens, is_safe_name
from build_engines.errors import SpecError

SPECS_DIR = Path(__file__).parent / "specs"

Positive = Annotated[int, msgspec.Meta(gt=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class PackageSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights in an installed Python package; `file` is relative to site-packages."""

    package: str
    version: str
    file: str
    sha256: Sha256


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


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to build the model.

    `tolerance` is on what `verify` compares: the mean difference of log-probs in nats; the greatest
    difference of an embedding's values and cosines.
    """

    quantization: str
    tolerance: Annotated[float, msgspec.Meta(gt=0)]


class _SpecFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    kind: str
    default_variant: str
    num_parameters: Positive
    max_seq_len: Positive
    source: PackageSource
    tokens: SpecialTokens
    variants: dict[str, Variant]


class _GeneratorSpecFile(_SpecFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify: Verification


class _EmbeddingSpecFile(_SpecFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify: EmbeddingVerification


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A model that can be built."""

    name: str
    kind: str  # which engine runs it: a folder of triton_models/
    default_variant: str
    num_parameters: int
    max_seq_len: int  # tokens, prompt and output together
    source: PackageSource
    tokens: SpecialTokens
    verify: Verification | EmbeddingVerification
    variants: dict[str, Variant]

    def choose(self, variant: str | None) -> str:
        """The variant's name, the default's for None. Raises SpecError with the names there are."""
        chosen = variant or self.default_variant
        if chosen not in self.variants:
            names = ", ".join(self.variants)
            raise SpecError(f"{self.name} has no variant {chosen}: choose one of {names}")
        return chosen


def spec_names() -> list[str]:
    """Names of the models that can be built."""
    return sorted(path.stem for path in SPECS_DIR.glob("*.toml"))


def buildable_variants(name: str) -> list[str]:
    """The variants that a model can be built in; none for a model without a spec."""
    return list(load_spec(name).variants) if name in spec_names() else []


def load_spec(name: str) -> Spec:
    """The spec of a model. Raises SpecError, naming the models there are."""
    if name not in spec_names():
        raise SpecError(f"there is no model {name}: choose one of {', '.join(spec_names())}")
    return read_spec(SPECS_DIR / f"{name}.toml")


def read_spec(path: Path) -> Spec:
    """Reads a spec file. Raises SpecError with the file and the key that is wrong."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        is_embedding = raw.get("kind") == "embedding"
        parsed = msgspec.convert(raw, _EmbeddingSpecFile if is_embedding else _GeneratorSpecFile)
    except OSError as exc:
        raise SpecError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path}: not TOML: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise SpecError(f"{path}: {str(exc).replace('$.', '')}") from exc
    _check(path, parsed)
    return Spec(**msgspec.structs.asdict(parsed))


def _check(path: Path, spec: _SpecFile) -> None:
    """What the types do not say."""
    if spec.name != path.stem:
        raise SpecError(f"{path}: name is {spec.name}, the file's name says {path.stem}")
    for name in (spec.name, *spec.variants):
        if not is_safe_name(name):
            raise SpecError(f"{path}: {name!r} cannot be the name of a model or a variant")
    if spec.default_variant not in spec.variants:
        raise SpecError(f"{path}: default_variant {spec.default_variant} is not among its variants")
    if not spec.tokens.eos_ids:
        raise SpecError(f"{path}: tokens.eos_ids is empty; the first of them ends an answer")
    _check_fill_in_middle(path, spec.tokens.fill_in_middle)


def _check_fill_in_middle(path: Path, form: str | None) -> None:
    if form is None:
        return
    problem = SpecError(f"{path}: tokens.fill_in_middle must have {{prefix}} and {{suffix}} alone")
    try:
        names = [name for _, name, _, _ in Formatter().parse(form) if name is not None]
    except ValueError as exc:
        raise problem from exc
    if sorted(names) != ["prefix", "suffix"]:
        raise problem
