"""Token ids with a meaning: the spec's, else the checkpoint's own."""

from __future__ import annotations

from build_engines.artefact import SpecialTokens
from build_engines.checkpoint import Checkpoint
from build_engines.errors import SourceError
from build_engines.spec import TokenOptions


def special_tokens(options: TokenOptions, checkpoint: Checkpoint | None) -> SpecialTokens:
    """What the spec leaves out is read from the checkpoint's tokenizer.

    Raises SourceError where neither says what ends an answer.
    """
    found = SpecialTokens(bos_id=None, eos_ids=[], pad_id=None)
    if checkpoint is not None and None in (options.bos_id, options.eos_ids, options.pad_id):
        from build_engines.tokenizers.write import read_special_tokens

        found = read_special_tokens(checkpoint.path)
    eos_ids = options.eos_ids or found.eos_ids
    if not eos_ids:
        raise SourceError(
            "neither the spec nor the checkpoint says which token ends an answer: "
            "write [tokens] eos_ids into a spec and give it by --spec"
        )
    return SpecialTokens(
        bos_id=found.bos_id if options.bos_id is None else options.bos_id,
        eos_ids=eos_ids,
        pad_id=found.pad_id if options.pad_id is None else options.pad_id,
        fill_in_middle=options.fill_in_middle,
    )
