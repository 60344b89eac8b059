"""A request of the native surface -> one GenerationRequest. What leaves is valid."""

from __future__ import annotations

from frontend.catalog import Catalog
from frontend.engine import Engine
from frontend.errors import InvalidParameter
from frontend.prepare import (
    PreparedRequest,
    new_generation,
    off_loop,
    text_context,
    text_model,
)
from frontend.protocol.native import GenerateRequest
from frontend.text.tokenizer import ChatTemplateError


async def prepare_generate(
    body: GenerateRequest, *, catalog: Catalog, engine: Engine
) -> PreparedRequest:
    """
    Raises:
        InvalidRequest: a field's value, or a prompt that does not fit.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    body.check()
    model = await text_model(body.model, catalog=catalog, engine=engine)
    tokenizer = model.tokenizer
    is_chat = body.apply_chat_template is not False and tokenizer.has_chat_template

    def make_prompt() -> tuple[str, list[int]]:
        if not is_chat:
            return body.prompt, tokenizer.encode(body.prompt, add_special_tokens=True)
        try:
            text = tokenizer.render_chat([{"role": "user", "content": body.prompt}])
        except ChatTemplateError as exc:
            raise InvalidParameter("prompt", "chat_template_failed", reason=str(exc)) from exc
        return text, tokenizer.encode(text, add_special_tokens=False)

    text, token_ids = await off_loop(len(body.prompt), make_prompt)
    generation = new_generation(
        body,
        model,
        token_ids,
        sampling=body.sampling_params(model.loaded.limits.vocab_size),
        prompt_param="prompt",
        max_new_tokens=body.max_tokens,
        id_prefix="gen-",
    )
    return PreparedRequest(
        generation=generation,
        tokenizer=tokenizer,
        decoder=tokenizer,
        fingerprint=model.fingerprint,
        prompt_text=text,
        context_token_ids=() if is_chat else text_context(token_ids),
    )
