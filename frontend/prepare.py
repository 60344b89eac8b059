"""Wire requests -> GenerationRequest: model, prompt tokens and limits. What leaves is valid."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from build_engines.artefacts.artefact import Artefact
from build_engines.lora import files as lora_files
from frontend import guides
from frontend.catalog import Catalog, visible_adapters
from frontend.chat_prompt import ChatPrompt, LateGuide, NewParser, Reading
from frontend.engine import Engine
from frontend.errors import AdapterNotFound, ContextLengthExceeded, InvalidParameter
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.extras import ExtraFields
from frontend.protocol.sampling import SamplingFields
from frontend.protocol.tools import ToolUse
from frontend.text.detokenizer import Decoder, MarkupDecoder
from frontend.text.tokenizer import ChatTemplateError, TextTokenizer
from frontend.types import (
    GenerationRequest,
    Guide,
    LoadedModel,
    LoraAdapter,
    ModelLimits,
    SamplingParams,
)

# Tokenizing takes about 1 ms for 10 kB; above this much it would hold up the other streams.
OFF_LOOP_CHARS = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRequest:
    """A request ready for the engine, and what its answer is decoded with."""

    generation: GenerationRequest
    tokenizer: TextTokenizer
    decoder: Decoder  # of the answer: the tokenizer, or one that shows special tokens
    fingerprint: str  # changes when what answers changes
    new_parser: NewParser | None = None  # None: an answer is nothing but text
    prompt_text: str = ""  # what was tokenized; empty where the client sent token ids
    # The last of a prompt whose text the answer's goes on, a bare one say; see `Detokenizer`.
    context_token_ids: tuple[int, ...] = ()
    late_guide: LateGuide | None = None  # with one sequence and a parser


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A loaded model that generates text."""

    name: str
    loaded: LoadedModel
    artefact: Artefact
    tokenizer: TextTokenizer
    fingerprint: str
    adapter: LoraAdapter | None = None


async def text_model(name: str | None, *, catalog: Catalog, engine: Engine) -> TextModel:
    """
    Raises:
        InvalidParameter: the model makes embeddings, or its engine takes no adapters.
        AdapterNotFound: the model has no such adapter.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    model, adapter = catalog.get_with_adapter(name)
    loaded = await engine.loaded_model(model.name)
    if loaded.embedding_size is not None:
        raise InvalidParameter("model", "makes_embeddings_only", model=model.name)
    artefact = catalog.served(loaded)
    return TextModel(
        name=model.name,
        loaded=loaded,
        artefact=artefact,
        tokenizer=catalog.tokenizer(artefact),
        fingerprint=catalog.fingerprint(artefact),
        adapter=_adapter(adapter, artefact, loaded),
    )


def _adapter(name: str | None, artefact: Artefact, loaded: LoadedModel) -> LoraAdapter | None:
    if name is None:
        return None
    adapters = artefact.manifest.adapters
    # Our own CPU engines have all tensors of the contract, and refuse these.
    if not loaded.takes_adapters or artefact.manifest.kind not in lora_files.KINDS:
        raise InvalidParameter("model", "no_adapters", model=loaded.name, adapter=name)
    if name not in adapters:
        known = ", ".join(visible_adapters(loaded.name, adapters)) or "-"
        raise AdapterNotFound(model=loaded.name, adapter=name, adapters=known, param="model")
    found = adapters[name]
    directory = str(artefact.path / found.directory)
    return LoraAdapter(name=name, task_id=found.task_id, directory=directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChat:
    """A chat's prompt as one model has it, however long, and how the answer to it is read."""

    model: TextModel
    text: str
    token_ids: list[int]
    reading: Reading


async def prepare_chat(
    body: ChatRequest,
    *,
    catalog: Catalog,
    engine: Engine,
    prompt_param: str = "messages",
    id_prefix: str = "chatcmpl-",
    allows_chat_template: bool = False,
) -> PreparedRequest:
    """
    Args:
        prompt_param: what errors about the prompt name; other errors name chat's own fields.
        allows_chat_template: whether the request may bring its own.

    Raises:
        InvalidRequest: a field's value, or a prompt that does not fit.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    chat = await render_chat(
        body,
        catalog=catalog,
        engine=engine,
        prompt_param=prompt_param,
        allows_chat_template=allows_chat_template,
    )
    model, reading = chat.model, chat.reading
    generation = new_generation(
        body,
        model,
        chat.token_ids,
        sampling=await extra_sampling(
            body, model, num_log_probs=body.num_log_probs, guide=reading.guide
        ),
        prompt_param=prompt_param,
        max_new_tokens=body.max_new_tokens,
        id_prefix=id_prefix,
    )
    return PreparedRequest(
        generation=with_extras(generation, body, model),
        tokenizer=model.tokenizer,
        decoder=_decoder(model, reading.new_parser),
        fingerprint=model.fingerprint,
        new_parser=reading.new_parser,
        late_guide=reading.late_guide,
        prompt_text=chat.text,
        context_token_ids=text_context(chat.token_ids) if body.continue_final_message else (),
    )


async def render_chat(
    body: ChatRequest,
    *,
    catalog: Catalog,
    engine: Engine,
    prompt_param: str = "messages",
    allows_chat_template: bool = False,
) -> RenderedChat:
    """The first half of `prepare_chat`, with the same arguments and errors."""
    body.check()
    if body.chat_template is not None and not allows_chat_template:
        raise InvalidParameter("chat_template", "not_allowed")
    use = body.tool_use()
    model = await text_model(body.model, catalog=catalog, engine=engine)
    tokenizer = model.tokenizer
    if not tokenizer.has_chat_template and body.chat_template is None:
        raise InvalidParameter(prompt_param, "no_chat_template")
    style = catalog.output_format(model.artefact, body.chat_template)
    guided = await _checked_guide(body, use, model)
    chat = ChatPrompt(body, use, tokenizer, style, guide=guided)

    def make_prompt() -> tuple[str, list[int]]:
        try:
            text = chat.render()
        except ChatTemplateError as exc:
            raise InvalidParameter(prompt_param, "chat_template_failed", reason=str(exc)) from exc
        return text, tokenizer.encode(text, add_special_tokens=False)

    text, token_ids = await off_loop(body.num_chars(), make_prompt)
    return RenderedChat(model=model, text=text, token_ids=token_ids, reading=chat.reading(text))


async def _checked_guide(body: ChatRequest, use: ToolUse, model: TextModel) -> Guide | None:
    guided = body.guided(use)
    if guided is None:
        return None
    param, guide = guided
    text_param = use.tools_param if param == use.choice_param else param
    await guides.check(guide, model.loaded, param=param, text_param=text_param)
    if use.choice == "auto" and body.n not in (None, 1):
        # Each answer is asked for in two parts; see LateGuide.
        raise InvalidParameter("n", "conflict", other=f"{param}, {use.tools_param}")
    return guide


def text_context(token_ids: list[int]) -> tuple[int, ...]:
    """The end of a prompt that is continued, long enough for any decoder (as vLLM's)."""
    return tuple(token_ids[-5:])


async def off_loop(num_chars: int, work: Callable[[], T]) -> T:
    """Do work on a text of so many characters: in a thread, if it is long."""
    return await asyncio.to_thread(work) if num_chars > OFF_LOOP_CHARS else work()


def new_generation(
    fields: SamplingFields,
    model: TextModel,
    token_ids: list[int],
    *,
    sampling: SamplingParams,
    prompt_param: str,
    max_new_tokens: int | None,
    id_prefix: str,
) -> GenerationRequest:
    """The request for one answer, with what all surfaces' fields say.

    Args:
        prompt_param: the field that the tokens came from.
        max_new_tokens: None: as many as the context has room for.

    Raises:
        InvalidRequest: the prompt does not fit.
    """
    limits = model.loaded.limits
    room = _room(token_ids, limits, param=prompt_param)
    end_id, *other_eos_ids = model.artefact.manifest.tokens.eos_ids
    return GenerationRequest(
        request_id=f"{id_prefix}{uuid.uuid4().hex}",
        model=model.name,
        prepared_for=model.loaded.served,
        adapter=model.adapter,
        prompt_token_ids=token_ids,
        max_new_tokens=room if max_new_tokens is None else min(max_new_tokens, room),
        is_length_open=max_new_tokens is None,
        sampling=sampling,
        stop=fields.stop_strings(),
        end_id=None if fields.ignore_eos else end_id,
        stop_token_ids=() if fields.ignore_eos else tuple(other_eos_ids),
    )


async def extra_sampling(
    body: ExtraFields, model: TextModel, *, num_log_probs: int | None, guide: Guide | None
) -> SamplingParams:
    """How tokens are chosen, by all fields: once a request, however many prompts it has.

    Raises:
        InvalidParameter: a token id beyond the vocabulary.
    """
    sampling = body.sampling_params(model.loaded.limits.vocab_size)
    words = body.bad_words or []
    bad_words = await off_loop(
        sum(len(word) for word in words),
        lambda: [ids for word in words for ids in model.tokenizer.word_ids(word)],
    )
    return replace(sampling, bad_words=tuple(bad_words), num_log_probs=num_log_probs, guide=guide)


def with_extras(
    generation: GenerationRequest, body: ExtraFields, model: TextModel
) -> GenerationRequest:
    """The same with what the fields beyond the native surface's say.

    Raises:
        InvalidParameter: a token id beyond the vocabulary.
    """
    stop_token_ids = body.checked_stop_token_ids(model.loaded.limits.vocab_size)
    return replace(
        generation,
        num_sequences=body.n or 1,
        stop_token_ids=(*generation.stop_token_ids, *stop_token_ids),
        cache_salt=body.cache_salt_number(),
        priority=body.priority or 0,
    )


def _room(token_ids: list[int], limits: ModelLimits, *, param: str) -> int:
    """How many tokens the context has left for the answer."""
    num_tokens = len(token_ids)
    max_tokens = min(limits.max_input_len, limits.max_seq_len - 1)
    if num_tokens > max_tokens:
        raise ContextLengthExceeded(param=param, num_tokens=num_tokens, max_tokens=max_tokens)
    if not num_tokens:
        raise InvalidParameter(param, "empty")
    return limits.max_seq_len - num_tokens


def _decoder(model: TextModel, new_parser: NewParser | None) -> Decoder:
    if new_parser is None or not new_parser().needs_special_tokens:
        return model.tokenizer
    return MarkupDecoder(model.tokenizer, model.artefact.manifest.tokens.eos_ids)
