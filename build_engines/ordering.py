"""Turns what a person asks for (a name, a spec file, a checkpoint, a variant) into an Order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from build_engines.artefacts.artefact import is_safe_name
from build_engines.checkpoints.checkpoint import Checkpoint
from build_engines.checkpoints.needed_files import GGUF_SUFFIX
from build_engines.checkpoints.source import fetch_stage
from build_engines.errors import ChoiceError, SourceError, SpecError, UnknownArchitectureError
from build_engines.families.table import FAMILIES, family_of
from build_engines.recipe import Order
from build_engines.spec import HubSource, PathSource, Source, Spec, load_spec, read_spec, spec_names
from build_engines.tokenizers.templates import template_hash
from build_engines.variants import GGUF_AS_IT_IS, OPENVINO, Variant

_HUB_ID = re.compile(
    r"(?P<hf>[\w-][\w.-]*/[\w.-]+?)(?P<file>/[\w./-]+\.gguf)?(?:@(?P<revision>[\w./-]+))?"
)
# What people put behind a model's name in the name of a GGUF file, and its shards' numbers
_GGUF_QUANTIZATION = re.compile(
    r"[.-](ggml[.-])?([it]?q\d\w*|f16|f32|bf16|fp16|mxfp4\w*)(-\d{5}-of-\d{5})?$|-\d{5}-of-\d{5}$",
    re.IGNORECASE,
)

# Fields of a spec that other variants are made from, that a variant has taken over, or that only
# a plan reads
_NOT_OF_ONE_VARIANT = frozenset(
    {
        *("source", "variants", "default_variant", "limits", "lora", "speculative"),
        *("architecture", "num_parameters"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asks for; what is None is left to us."""

    model: str | None = None
    variant: str | None = None
    spec_file: Path | None = None
    checkpoint: str | None = None  # a folder, a GGUF file, or a Hugging Face id
    name: str | None = None  # to publish it under


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists()


def order_of(request: Request, home: Path, has_gpu: Callable[[], bool] = has_gpu) -> Order:
    """The order with nothing left open. Raises SpecError, SourceError."""
    given = None if request.checkpoint is None else parse_checkpoint(request.checkpoint)
    spec = _named(_find_spec(request, given), request.name)
    return order_for(spec, request.variant, home, given=given, has_gpu=has_gpu)


def order_for(
    spec: Spec,
    variant: str | None,
    home: Path,
    *,
    given: Source | None = None,
    has_gpu: Callable[[], bool] = has_gpu,
) -> Order:
    """The order of a spec's variant, with the checkpoint that was `given` instead of its own."""
    source = given or spec.source
    if source is None:
        raise SpecError(f"{spec.name} has no source: give its checkpoint by --checkpoint")
    chosen = variant or _default_variant(spec, source, given is not None, has_gpu)
    order = Order(spec=spec, variant=variant_of(spec, chosen), source=source, home=home)
    return replace(order, key=_key(order))


def variant_of(spec: Spec, name: str) -> Variant:
    """The variant, its kind as the family has it where the spec does not say."""
    family = spec.family
    if family is None and spec.architecture is not None:
        try:
            family = family_of(spec.architecture).name
        except UnknownArchitectureError:
            family = None  # nothing but a GGUF file as it is can be built: its recipe says so
    if family is not None and family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise SpecError(f"{spec.name}: there is no family {family}: choose one of {known}")
    return spec.variant(name, kind_of=None if family is None else FAMILIES[family].kind_of)


def with_family(spec: Spec, checkpoint: Checkpoint) -> Spec:
    """The spec with the checkpoint's family. Raises SpecError where it says another one.

    A family shares its classes with others (GGUF files of Mistral's say that they are Llama's):
    the spec's word is taken where its family has the checkpoint's class.
    """
    found = checkpoint.architecture
    if spec.family is None:
        try:
            return replace(spec, family=family_of(found).name)
        except UnknownArchitectureError:
            return spec  # a GGUF file that is served as it is needs no family
    family = FAMILIES[spec.family]
    known = family.gguf_architectures if checkpoint.format == "gguf" else family.architectures
    name = found.model_type if checkpoint.format == "gguf" else found.hf_architecture
    if known and name not in known:
        raise SpecError(
            f"{spec.name} is of the family {spec.family}, {checkpoint.path} is {name}: give the "
            "checkpoint of this model, or another name by --name"
        )
    return spec


def check_tokens(spec: Spec, checkpoint: Checkpoint) -> None:
    """Raises SpecError where the spec's token ids are not of the checkpoint's vocabulary.

    They go before the checkpoint's own, so that a spec can mend what a checkpoint says wrongly.
    """
    tokens, size = spec.tokens, checkpoint.architecture.vocab_size
    ids = [tokens.bos_id, tokens.pad_id, *(tokens.eos_ids or ())]
    foreign = [one for one in ids if one is not None and one >= size]
    if foreign:
        raise SpecError(
            f"the spec of {spec.name} has the token id {foreign[0]}, {checkpoint.path} has {size} "
            "tokens: it is another model's; build it under a name that has no spec, or with a spec "
            "that leaves [tokens] out"
        )


def parse_checkpoint(text: str) -> Source:
    """A folder or file that is there, else OWNER/NAME[/FILE.gguf][@REVISION] of the hub."""
    path = Path(text).expanduser()
    if path.exists():
        return PathSource(path=str(path.absolute()))
    found = _HUB_ID.fullmatch(text)
    is_path = text.startswith((".", "~", "/")) or (text.endswith(GGUF_SUFFIX) and not _file(found))
    if found is None or is_path:
        raise SourceError(
            f"there is no checkpoint {text}: give a folder, a GGUF file or a Hugging Face id "
            "(OWNER/NAME or OWNER/NAME/FILE.gguf)"
        )
    return HubSource(
        hf=found["hf"], revision=found["revision"] or "main", file=_file(found) or None
    )


def name_of(source: Source) -> str:
    """A model's name by the name of its folder, file or repository."""
    if isinstance(source, PathSource):
        path = Path(source.path)
        text = path.stem if path.suffix == GGUF_SUFFIX else path.name
    elif isinstance(source, HubSource):
        text = Path(source.file).stem if source.file else source.hf.partition("/")[2]
    else:
        text = source.package
    short = _GGUF_QUANTIZATION.sub("", text).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", short).strip("._-")


def is_gguf(source: Source) -> bool:
    """Whether a source is one GGUF file."""
    if isinstance(source, PathSource):
        return source.path.endswith(GGUF_SUFFIX)
    return source.file is not None and source.file.endswith(GGUF_SUFFIX)


def require_gguf(order: Order) -> None:
    """Raises ChoiceError, before anything is fetched, for what is not made from a GGUF file."""
    if not is_gguf(order.source):
        raise ChoiceError(
            f"variant {order.variant.name} is made from a GGUF file, {order.spec.name} is a "
            "Hugging Face checkpoint: give a file by --checkpoint FILE.gguf, or build the variant "
            f"{OPENVINO}"
        )


def _find_spec(request: Request, given: Source | None) -> Spec:
    if request.spec_file is not None:
        spec = read_spec(request.spec_file)
        if request.model not in (None, spec.name):
            raise SpecError(f"{request.spec_file} is of {spec.name}, not of {request.model}")
        return spec
    if given is None:
        if request.model is None:
            raise SpecError(f"which model? choose one of {', '.join(spec_names())}")
        return load_spec(request.model)
    name = request.model or name_of(given)
    # A file called like a model that we know is taken for it: its family is compared later
    return load_spec(name) if name in spec_names() else Spec(name=name)


def _named(spec: Spec, name: str | None) -> Spec:
    spec = spec if name is None else replace(spec, name=name)
    if not is_safe_name(spec.name):
        raise SpecError(f"{spec.name!r} cannot be the name of a model: choose another by --name")
    return spec


def _default_variant(
    spec: Spec, source: Source, is_given: bool, has_gpu: Callable[[], bool]
) -> str:
    """A GGUF file that was given is served as it is; else as the spec says, or what runs here."""
    if is_given and is_gguf(source):
        return GGUF_AS_IT_IS
    if spec.default_variant is not None:
        return spec.default_variant
    if is_gguf(source):
        return GGUF_AS_IT_IS
    if spec.variants:
        return next(iter(spec.variants))
    return "bf16" if has_gpu() else OPENVINO


def _key(order: Order) -> str:
    """The same for orders of the same thing; reads no weights and asks no hub.

    Of the spec only what this variant is built from. What is not said does not count, so that a
    key means the same after specs have got another field.
    """
    spec: dict[str, Any] = msgspec.to_builtins(order.spec)
    template = order.spec.chat_template
    parts = {
        "spec": {name: value for name, value in spec.items() if name not in _NOT_OF_ONE_VARIANT},
        "variant": msgspec.to_builtins(order.variant),
        "chat_template": None if template is None else template_hash(template),
        "fetch": fetch_stage(order.source, order.home).inputs,
    }
    content = msgspec.json.encode(_said(parts), order="deterministic")
    return hashlib.sha256(content).hexdigest()


def _said(value: Any) -> Any:
    """Without what is left out in the tables of a spec."""
    if not isinstance(value, dict):
        return value
    found = {name: _said(part) for name, part in value.items()}
    return {
        name: part
        for name, part in found.items()
        if part is not None and part is not False and part not in ("", [], {})
    }


def _file(found: re.Match[str] | None) -> str:
    return (found["file"] or "").removeprefix("/") if found else ""
