"""Every route, in one table: the application serves it, the description is made of it."""

from __future__ import annotations

from frontend.api.anthropic import count_message_tokens, create_message
from frontend.api.chat import create_chat_completion
from frontend.api.completions import create_completion
from frontend.api.docs import HTML, get_docs, get_openapi
from frontend.api.embeddings import create_embedding
from frontend.api.health import METRICS_CONTENT_TYPE, get_health, get_metrics
from frontend.api.models import (
    get_openai_model,
    list_models,
    list_openai_models,
    load_model,
    unload_model,
)
from frontend.api.native import create_batch, create_generation, stream_generation
from frontend.api.openai_responses import (
    cancel_response,
    count_input_tokens,
    create_response,
    delete_response,
    get_response,
    list_input_items,
)
from frontend.api.route import Route
from frontend.api.tokenize import (
    detokenize,
    get_tokenizer_info,
    render_chat_completion,
    tokenize,
)
from frontend.errors import (
    BodyTooLarge,
    ContextLengthExceeded,
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotLoaded,
    PreviousResponseNotFound,
    ResponseNotFound,
    ServerOverloaded,
    VariantNotFound,
)
from frontend.protocol.answers import (
    anthropic,
    chat,
    completions,
    native,
    openai,
    responses,
    tokens,
)
from frontend.protocol.answers.description import OpenAPI
from frontend.protocol.anthropic_request import CountTokensRequest, MessagesRequest
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.completion_request import CompletionRequest
from frontend.protocol.embeddings import EmbeddingRequest
from frontend.protocol.native import BatchGenerateRequest, GenerateRequest, LoadRequest
from frontend.protocol.response_queries import ItemsQuery, RetrieveQuery
from frontend.protocol.response_request import ResponseRequest
from frontend.protocol.tokenize import DetokenizeRequest, TokenizeRequest, TokenizerInfoQuery

INFERENCE_ERRORS = (
    InvalidParameter,
    ContextLengthExceeded,
    ModelNotFound,
    ModelNotLoaded,
    EngineUnavailable,
    ServerOverloaded,
    GenerationFailed,
)
QUESTION = "What is the capital of France?"

HEALTH = ("Whether requests can be served.", "服务是否可用。")
METRICS = (
    "Prometheus metrics of the frontend and of Triton.",
    "前端与 Triton 的 Prometheus 指标。",
)
HEALTH_ANSWERS = {200: native.Health, 503: native.Health}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", get_health, HEALTH, answers=HEALTH_ANSWERS),
    Route("GET", "/api/v1/health", get_health, HEALTH, answers=HEALTH_ANSWERS),
    Route("GET", "/metrics", get_metrics, METRICS, media=METRICS_CONTENT_TYPE),
    Route("GET", "/api/v1/metrics", get_metrics, METRICS, media=METRICS_CONTENT_TYPE),
    Route(
        "GET",
        "/openapi.json",
        get_openapi,
        ("This description.", "本描述文件。"),
        answers={200: OpenAPI},
    ),
    Route(
        "GET",
        "/docs",
        get_docs,
        ("This description, for people.", "供人阅读的接口文档。"),
        media=HTML,
    ),
    Route(
        "POST",
        "/api/v1/generate",
        create_generation,
        ("Answer a prompt.", "回答一个提示词。"),
        body=GenerateRequest,
        example={"prompt": "请解释人工智能的概念", "max_tokens": 64},
        answers={200: native.Generation},
        events=(native.GenerationEvent,),
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/api/v1/generate/stream",
        stream_generation,
        ("Answer a prompt as a stream.", "流式回答一个提示词。"),
        body=GenerateRequest,
        example={"prompt": "请解释人工智能的概念", "max_tokens": 64},
        events=(native.GenerationEvent,),
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/api/v1/batch/generate",
        create_batch,
        ("Answer many prompts at once.", "同时回答多个提示词。"),
        body=BatchGenerateRequest,
        example={"requests": [{"prompt": "问题1", "max_tokens": 16}, {"prompt": "问题2"}]},
        answers={200: native.BatchGeneration},
        is_work=True,
    ),
    Route(
        "GET",
        "/api/v1/models",
        list_models,
        ("The models, loaded or not.", "所有模型及其加载状态。"),
        answers={200: native.NativeModels},
    ),
    Route(
        "POST",
        "/api/v1/models/<model_name>/load",
        load_model,
        ("Load a variant of a model.", "加载模型的一个版本。"),
        body=LoadRequest,
        is_body_optional=True,
        example={"quantization": "q8_0", "prefer_gpu": False},
        answers={200: native.NativeModel},
        errors=(ModelNotFound, VariantNotFound, EngineUnavailable, ModelLoadFailed),
        is_work=True,
    ),
    Route(
        "POST",
        "/api/v1/models/<model_name>/unload",
        unload_model,
        ("Unload a model.", "卸载模型。"),
        answers={200: native.NativeModel},
        errors=(BodyTooLarge, ModelNotFound, EngineUnavailable),
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        create_chat_completion,
        ("Answer a conversation.", "回答一段对话。"),
        body=ChatRequest,
        example={"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64},
        answers={200: chat.ChatCompletion},
        events=(chat.ChatCompletionChunk,),
        ends_with_done=True,
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/chat/completions/render",
        render_chat_completion,
        ("The prompt of a conversation, and its tokens.", "对话渲染成的提示词及其 token。"),
        body=ChatRequest,
        example={"messages": [{"role": "user", "content": QUESTION}]},
        answers={200: tokens.RenderedPrompt},
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/completions",
        create_completion,
        ("Complete a text.", "续写文本。"),
        body=CompletionRequest,
        example={"prompt": "The capital of France is", "max_tokens": 16},
        answers={200: completions.Completion},
        events=(completions.CompletionChunk,),
        ends_with_done=True,
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/tokenize",
        tokenize,
        ("The tokens of a text or a conversation.", "文本或对话的 token。"),
        body=TokenizeRequest,
        example={"prompt": "Hello, 世界"},
        answers={200: tokens.Tokens},
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/detokenize",
        detokenize,
        ("The text of tokens.", "token 对应的文本。"),
        body=DetokenizeRequest,
        example={"tokens": [10, 11, 12]},
        answers={200: tokens.Detokenized},
        errors=(InvalidParameter, ModelNotFound),
        is_work=True,
    ),
    Route(
        "GET",
        "/tokenizer_info",
        get_tokenizer_info,
        ("A model's special tokens and chat template.", "模型的特殊 token 与对话模板。"),
        query=TokenizerInfoQuery,
        answers={200: tokens.TokenizerInfo},
        errors=(ModelNotFound,),
    ),
    Route(
        "POST",
        "/v1/messages",
        create_message,
        ("Answer a conversation, in Anthropic's shape.", "以 Anthropic 的格式回答一段对话。"),
        body=MessagesRequest,
        example={
            "model": "default",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": QUESTION}],
        },
        answers={200: anthropic.AnthropicMessage},
        events=anthropic.EVENTS,
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        count_message_tokens,
        ("How many tokens a conversation has.", "一段对话的 token 数。"),
        body=CountTokensRequest,
        example={"model": "default", "messages": [{"role": "user", "content": QUESTION}]},
        answers={200: anthropic.CountedTokens},
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/responses",
        create_response,
        ("Answer, and keep the conversation.", "回答并保存对话。"),
        body=ResponseRequest,
        example={"input": QUESTION, "max_output_tokens": 64},
        answers={200: responses.Response},
        events=responses.EVENTS,
        errors=(*INFERENCE_ERRORS, PreviousResponseNotFound),
        is_work=True,
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        count_input_tokens,
        ("How many tokens an input has.", "计算输入的 token 数。"),
        body=ResponseRequest,
        example={"input": QUESTION},
        answers={200: responses.ResponseInputTokens},
        errors=(*INFERENCE_ERRORS, PreviousResponseNotFound),
        is_work=True,
    ),
    Route(
        "GET",
        "/v1/responses/<response_id>",
        get_response,
        ("A stored response, or its stream.", "已保存的响应，或其事件流。"),
        query=RetrieveQuery,
        answers={200: responses.Response},
        events=responses.EVENTS,
        errors=(InvalidParameter, ResponseNotFound),
        is_work=True,
    ),
    Route(
        "DELETE",
        "/v1/responses/<response_id>",
        delete_response,
        ("Delete a stored response.", "删除已保存的响应。"),
        answers={200: responses.DeletedResponse},
        errors=(ResponseNotFound,),
    ),
    Route(
        "POST",
        "/v1/responses/<response_id>/cancel",
        cancel_response,
        ("Stop a background response.", "停止后台响应。"),
        answers={200: responses.Response},
        errors=(InvalidRequest, BodyTooLarge, ResponseNotFound),
    ),
    Route(
        "GET",
        "/v1/responses/<response_id>/input_items",
        list_input_items,
        ("What a response was made from.", "生成响应所用的全部条目。"),
        query=ItemsQuery,
        answers={200: responses.ResponseItems},
        errors=(InvalidParameter, PreviousResponseNotFound, ResponseNotFound),
    ),
    Route(
        "POST",
        "/v1/embeddings",
        create_embedding,
        ("Vectors of texts, by an embedding model.", "由嵌入模型生成文本的向量。"),
        body=EmbeddingRequest,
        example={"model": "all-minilm-l6-v2", "input": ["Hello", "你好"]},
        answers={200: openai.Embeddings},
        errors=INFERENCE_ERRORS,
        is_work=True,
    ),
    Route(
        "GET",
        "/v1/models",
        list_openai_models,
        ("The models there are.", "现有的模型。"),
        answers={200: openai.Models},
    ),
    Route(
        "GET",
        "/v1/models/<model_name>",
        get_openai_model,
        ("One model.", "一个模型。"),
        answers={200: openai.Model},
        errors=(ModelNotFound,),
    ),
)
