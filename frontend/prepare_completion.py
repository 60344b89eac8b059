"""A completion request -> one GenerationRequest for each of its prompts. What leaves is valid."""

from __future__ import annotations

from dataclasses import dataclass, replace

from frontend import guides
from frontend.catalog import Catalog
from frontend.engine import Engine
from frontend.errors import InvalidParameter
from frontend.prepare import (
    PreparedRequest,
    TextModel,
    extra_sampling,
    new_generation,
    off_loop,
    text_context,
    text_model,
    with_extras,
)
from frontend.protocol.completion_answer import CompletionPrompt
from frontend.protocol.completion_request import CompletionRequest
from frontend.protocol.inputs import Input, input_param
from frontend.protocol.parse import check_range
from frontend.text.detokenizer import Detokenizer, MarkupDecoder
from frontend.text.tokenizer import TextTokenizer
from frontend.types import GenerationRequest, SamplingParams

CHARS_PER_ECHOED_TOKEN = 20  # as long as these take to tokenize, a token takes to become text


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCompletion:
    """One request, and for each of its prompts what the engine gets and how it is echoed."""

    requests: list[PreparedRequest]
    prompts: list[CompletionPrompt]

    @property
    def first(self) -> PreparedRequest:
        return self.requests[0]


async def prepare_completion(
    body: CompletionRequest, *, catalog: Catalog, engine: Engine
) -> PreparedCompletion:
    """
    Raises:
        InvalidRequest: a field's value, or a prompt that does not fit.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    body.check()
    guided = body.guided()
    model = await text_model(body.model, catalog=catalog, engine=engine)
    if guided is not None:
        param, guide = guided
        await guides.check(guide, model.loaded, param=param, text_param=param)
    inputs = _inputs(body, model)
    sampling = await extra_sampling(
        body, model, num_log_probs=body.num_log_probs, guide=guided[1] if guided else None
    )
    prompts = await off_loop(_num_chars(body, inputs), lambda: _prompts(body, model, inputs))
    return PreparedCompletion(
        requests=[
            _prepared(body, model, index, prompt, sampling) for index, prompt in enumerate(prompts)
        ],
        prompts=prompts,
    )


def _inputs(body: CompletionRequest, model: TextModel) -> list[Input]:
    """The prompts, those for a text between two others in the model's own form."""
    tokens = model.artefact.manifest.tokens
    inputs = body.inputs()
    if body.suffix is not None:
        form = tokens.fill_in_middle
        if form is None:
            raise InvalidParameter("suffix", "no_fill_in_middle")
        return [form.format(prefix=prefix, suffix=body.suffix) for prefix in inputs or [""]]
    if inputs:
        return inputs
    if tokens.bos_id is None:
        raise InvalidParameter("prompt", "missing" if body.prompt is None else "empty")
    return [[tokens.bos_id]]


def _num_chars(body: CompletionRequest, inputs: list[Input]) -> int:
    """About how long the prompts are, for `off_loop`."""
    per_token = CHARS_PER_ECHOED_TOKEN if body.echo else 0
    return sum(len(one) * (1 if isinstance(one, str) else per_token) for one in inputs)


def _prompts(
    body: CompletionRequest, model: TextModel, inputs: list[Input]
) -> list[CompletionPrompt]:
    prompts = []
    for index, given in enumerate(inputs):
        if isinstance(given, str):
            prompt = _text_prompt(body, model.tokenizer, given)
        else:
            param = input_param("prompt", body.prompt, index)
            for token_id in (min(given), max(given)):
                check_range(param, token_id, 0, model.loaded.limits.vocab_size - 1)
            prompt = _token_prompt(body, model.tokenizer, given)
        prompts.append(replace(prompt, context=text_context(prompt.token_ids)))
    return prompts


def _text_prompt(body: CompletionRequest, tokenizer: TextTokenizer, text: str) -> CompletionPrompt:
    adds_special_tokens = body.add_special_tokens is not False
    if not body.echo:
        token_ids = tokenizer.encode(text, add_special_tokens=adds_special_tokens)
        return CompletionPrompt(token_ids=token_ids)
    token_ids, offsets = tokenizer.encode_with_offsets(text, add_special_tokens=adds_special_tokens)
    return CompletionPrompt(token_ids=token_ids, text=text, offsets=offsets)


def _token_prompt(
    body: CompletionRequest, tokenizer: TextTokenizer, token_ids: list[int]
) -> CompletionPrompt:
    if not body.echo or body.prompt in (None, ""):
        return CompletionPrompt(token_ids=token_ids, offsets=[0])
    detokenizer = Detokenizer(MarkupDecoder(tokenizer, ()))
    text, offsets = "", []
    for token_id in token_ids:
        offsets.append(len(text))
        text += detokenizer.push(token_id)
    text += detokenizer.flush()
    return CompletionPrompt(token_ids=token_ids, text=text, offsets=offsets)


def _prepared(
    body: CompletionRequest,
    model: TextModel,
    index: int,
    prompt: CompletionPrompt,
    sampling: SamplingParams,
) -> PreparedRequest:
    generation = new_generation(
        body,
        model,
        prompt.token_ids,
        sampling=sampling,
        prompt_param=input_param("prompt", body.prompt, index),
        max_new_tokens=body.max_new_tokens,
        id_prefix="cmpl-",
    )
    generation = replace(
        _showing_end(with_extras(generation, body, model)),
        num_sequences=body.num_candidates,
        returns_prompt_log_probs=body.needs_prompt_log_probs,
        may_move=len(body.inputs()) > 1,  # others may have begun to be answered
    )
    return PreparedRequest(
        generation=generation,
        tokenizer=model.tokenizer,
        decoder=model.tokenizer,
        fingerprint=model.fingerprint,
        prompt_text=prompt.text,
        context_token_ids=prompt.context,
    )


def _showing_end(generation: GenerationRequest) -> GenerationRequest:
    """With log-probs, the token that ends the text has one, too.

    Evaluation harnesses count on it: a completion of one token has one log-prob. An engine tells
    nothing of its end_id, but all of a stop token. Where the end_id means more to it (the least
    number of tokens, a guide's end), it stays.
    """
    sampling = generation.sampling
    if sampling.num_log_probs is None or sampling.min_tokens or sampling.guide is not None:
        return generation
    end_ids = () if generation.end_id is None else (generation.end_id,)
    return replace(
        generation,
        end_id=None,
        stop_token_ids=(*end_ids, *generation.stop_token_ids),
        shows_stop_token=True,
    )
