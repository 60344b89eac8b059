"""The words of every error, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Language(StrEnum):
    EN = "en"
    ZH = "zh"


def render(key: str, language: Language, values: Mapping[str, object]) -> str:
    """Fill in the message of `key`; a key without a message of its own gives an empty text."""
    words = MESSAGES.get(key)
    if words is None:
        return ""
    english, chinese = words
    return (chinese if language is Language.ZH else english).format_map(values)


def preferred_language(accept_language: str | None) -> Language:
    """Pick the language that an Accept-Language header prefers; English when it says nothing.

    Source: RFC 9110, section 12.5.4 (ranges with q-values; the highest q wins, then the first).
    """
    best, best_q = Language.EN, 0.0
    for item in (accept_language or "").split(","):
        tag, _, parameters = item.strip().partition(";")
        primary = tag.strip().lower().split("-")[0]
        name, _, value = parameters.strip().partition("=")
        try:
            q = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
        if q > best_q and primary in ("en", "zh"):
            best, best_q = Language(primary), q
    return best


# key -> (English, Chinese)
MESSAGES: dict[str, tuple[str, str]] = {
    "internal_error": (
        "The server had an internal error; its log has the details.",
        "服务器内部错误，详情见服务器日志",
    ),
    "invalid_request": ("The request is invalid.", "请求无效"),
    "invalid_json": (
        "The request body is not valid JSON: {reason}",
        "请求体不是有效的 JSON：{reason}",
    ),
    "body_not_object": (
        "The request body must be a JSON object.",
        "请求体必须是 JSON 对象",
    ),
    "invalid_value": ("'{param}' is invalid.", "参数 '{param}' 无效"),
    "wrong_type": (
        "'{param}' has the wrong type: {reason}",
        "参数 '{param}' 的类型错误：{reason}",
    ),
    "missing": ("'{param}' is required.", "缺少必需的参数 '{param}'"),
    "unknown_field": (
        "Unknown field '{param}'; this server does not support it.",
        "未知字段 '{param}'，本服务器不支持",
    ),
    "out_of_range": (
        "'{param}' must be between {minimum} and {maximum}, got {value}.",
        "参数 '{param}' 必须在 {minimum} 到 {maximum} 之间，实际为 {value}",
    ),
    "not_one_of": (
        "'{param}' must be one of {choices}, got {value}.",
        "参数 '{param}' 必须是 {choices} 之一，实际为 {value}",
    ),
    "empty": ("'{param}' must not be empty.", "参数 '{param}' 不能为空"),
    "too_many": (
        "'{param}' has {count} entries; at most {maximum} are allowed.",
        "参数 '{param}' 有 {count} 项，最多允许 {maximum} 项",
    ),
    "unsupported": (
        "'{param}' is not supported by this model: {reason}",
        "此模型不支持参数 '{param}'：{reason}",
    ),
    "not_supported": (
        "'{param}' is not supported by this server.",
        "本服务器不支持参数 '{param}'",
    ),
    "not_allowed": (
        "'{param}' is not allowed by this server's settings.",
        "本服务器的设置不允许使用参数 '{param}'",
    ),
    "not_in_template": (
        "'{param}' is not supported by this model: its chat template does not use it.",
        "此模型不支持参数 '{param}'：其对话模板不使用它",
    ),
    "not_a_text_part": (
        "'{param}' is {value}, but this model takes text only.",
        "'{param}' 为 {value}，而此模型只接受文本",
    ),
    "conflict": (
        "'{param}' cannot be used together with '{other}'.",
        "参数 '{param}' 不能与 '{other}' 同时使用",
    ),
    "not_a_name": (
        "'{param}' must have 1 to {maximum} characters, and no control characters.",
        "参数 '{param}' 必须有 1 到 {maximum} 个字符，且不能含有控制字符",
    ),
    "not_a_day": (
        "'{param}' must be a day as 2026-11-30, not {value}.",
        "参数 '{param}' 必须是日期（如 2026-11-30），而不是 {value}",
    ),
    "not_a_month": (
        "'{param}' must be a month as 2026-11, not {value}.",
        "参数 '{param}' 必须是月份（如 2026-11），而不是 {value}",
    ),
    "not_after": (
        "'{param}' must not be after '{other}'.",
        "参数 '{param}' 不能晚于 '{other}'",
    ),
    "too_many_sums": (
        "By '{param}' there are more than {maximum} sums: ask for fewer days, or sum up by less.",
        "按 '{param}' 汇总的结果超过 {maximum} 条：请缩短时间范围或减少汇总维度",
    ),
    "only_with": (
        "'{param}' is only allowed together with '{other}'.",
        "参数 '{param}' 只能与 '{other}' 一起使用",
    ),
    "only_with_texts": (
        "'{param}' is only allowed when '{other}' is text, not token ids.",
        "仅当 '{other}' 为文本而非 token id 时才允许使用参数 '{param}'",
    ),
    "no_fill_in_middle": (
        "'{param}' is not supported by this model: it has no form for filling in the middle.",
        "此模型不支持参数 '{param}'：它没有中间填充（fill-in-the-middle）格式",
    ),
    "only_with_tools": (
        "'{param}' is only allowed when tools are specified.",
        "参数 '{param}' 只能在提供工具时使用",
    ),
    "only_in_role": (
        "'{param}' is only allowed in a message of role '{role}'.",
        "'{param}' 只能出现在角色为 '{role}' 的消息中",
    ),
    "duplicate": (
        "'{param}' is given twice: {value}.",
        "'{param}' 重复：{value}",
    ),
    "too_long": (
        "'{param}' has {length} characters; at most {maximum} are allowed.",
        "参数 '{param}' 有 {length} 个字符，最多允许 {maximum} 个",
    ),
    "invalid_guide": (
        "'{param}' cannot be enforced: {reason}",
        "参数 '{param}' 无法强制执行：{reason}",
    ),
    "only_with_stream": (
        "'{param}' is only allowed together with 'stream': true.",
        "参数 '{param}' 只能与 'stream': true 一起使用",
    ),
    "chat_template_failed": (
        "The model's chat template refused '{param}': {reason}",
        "模型的对话模板拒绝了 '{param}'：{reason}",
    ),
    "makes_no_embeddings": (
        "The model '{model}' generates text and makes no embeddings.",
        "模型 '{model}' 用于生成文本，不提供嵌入向量",
    ),
    "makes_embeddings_only": (
        "The model '{model}' makes embeddings only; use /v1/embeddings.",
        "模型 '{model}' 只提供嵌入向量，请使用 /v1/embeddings",
    ),
    "no_chat_template": (
        "The model has no chat template, so '{param}' cannot be used; use completions instead.",
        "模型没有对话模板，不能使用参数 '{param}'，请使用补全接口",
    ),
    "engine_refused": (
        "'{param}' was refused by the engine: {reason}",
        "引擎拒绝了参数 '{param}'：{reason}",
    ),
    "context_length_exceeded": (
        "The prompt has {num_tokens} tokens, but the model's context allows at most {max_tokens}.",
        "提示词有 {num_tokens} 个 token，而模型的上下文最多允许 {max_tokens} 个",
    ),
    "context_length_exceeded.details": (
        "Shorten the prompt, or use a model with a longer context.",
        "请缩短提示词，或使用上下文更长的模型",
    ),
    "method_not_allowed": (
        "The method {method} is not allowed here; allowed: {allowed}.",
        "此处不允许使用 {method} 方法，允许的方法：{allowed}",
    ),
    "request_too_large": (
        "The request body is larger than {max_body_bytes} bytes.",
        "请求体超过 {max_body_bytes} 字节",
    ),
    "unsupported_media_type": (
        "The content type '{content_type}' is not supported; send application/json.",
        "不支持内容类型 '{content_type}'，请使用 application/json",
    ),
    "unsupported_content_encoding": (
        "The content encoding '{encoding}' is not supported; these are: {known}.",
        "不支持内容编码 '{encoding}'，支持的有：{known}",
    ),
    "invalid_encoding": (
        "The request body is not valid {encoding} data.",
        "请求体不是有效的 {encoding} 数据",
    ),
    "not_found": ("There is nothing at {path}.", "路径 {path} 不存在"),
    "model_not_found": ("The model '{model}' does not exist.", "模型 '{model}' 不存在"),
    "model_not_found.details": (
        "GET /v1/models lists the models there are.",
        "可通过 GET /v1/models 查看现有模型",
    ),
    "response_not_found": (
        "The response '{response_id}' does not exist: it was not stored, or is deleted or expired.",
        "响应 '{response_id}' 不存在：未被保存，或已被删除或过期",
    ),
    "previous_response_not_found": (
        "The conversation cannot be continued: its response '{response_id}' was not stored, or is "
        "deleted or expired.",
        "无法继续对话：其中的响应 '{response_id}' 未被保存，或已被删除或过期",
    ),
    "previous_response_active": (
        "'{param}' names a response that is not finished yet.",
        "参数 '{param}' 指向的响应尚未完成",
    ),
    "item_not_found": (
        "'{param}' names an item that is not stored: '{item_id}'",
        "参数 '{param}' 指向的条目未被保存：'{item_id}'",
    ),
    "no_call_for_output": (
        "'{param}' has an output for the call '{call_id}', but no such call before it.",
        "参数 '{param}' 包含调用 '{call_id}' 的输出，但之前没有该调用",
    ),
    "metadata_too_long": (
        "'{param}' has a key of more than 64 or a value of more than 512 characters: '{name}'",
        "参数 '{param}' 的键超过 64 个字符或值超过 512 个字符：'{name}'",
    ),
    "not_in_background": (
        "Only a response that was created with 'background': true can be cancelled.",
        "只能取消以 'background': true 创建的响应",
    ),
    "already_ended": (
        "The response has ended already; its status is {status}.",
        "响应已结束，状态为 {status}",
    ),
    "no_stream_kept": (
        "Only a response that was created with 'background' and 'stream': true can be streamed.",
        "只有以 'background' 和 'stream': true 创建的响应才能以流方式读取",
    ),
    "run_interrupted": (
        "The server stopped before this response was finished.",
        "服务器在此响应完成之前停止",
    ),
    "variant_not_found": (
        "The model '{model}' has no variant that fits {wanted}; there are: {variants}.",
        "模型 '{model}' 没有符合 {wanted} 的版本，现有版本：{variants}",
    ),
    "authentication_failed": ("The API key is not valid.", "API 密钥无效"),
    "authentication_failed.details": (
        "Send a valid key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
        "请以 'Authorization: Bearer 密钥' 或 'X-API-Key: 密钥' 发送有效的密钥",
    ),
    "permission_denied": (
        "The API key has no right to do this: it lacks the scope '{scope}'.",
        "此 API 密钥无权执行该操作：缺少权限 '{scope}'",
    ),
    "cross_origin_refused": (
        "Web pages of the origin '{origin}' may not use this server: name it in the setting "
        "cors_origins to let them in.",
        "来源为 '{origin}' 的网页无权使用此服务器：如需允许，请在设置 cors_origins 中加入该来源",
    ),
    "host_refused": (
        "This server is not known by the name '{host}': name it in the setting allowed_hosts, or "
        "ask for it by its address.",
        "此服务器不以 '{host}' 为名：请在设置 allowed_hosts 中加入该名称，或使用其 IP 地址访问",
    ),
    "key_not_found": (
        "There is no API key '{key_id}' that this can be done with.",
        "不存在可执行此操作的 API 密钥 '{key_id}'",
    ),
    "rate_limited": ("Too many requests.", "请求过于频繁"),
    "rate_limited.requests": (
        "Rate limit reached for requests: limit {limit}, remaining {remaining}, requested "
        "{requested}. Try again in {wait}.",
        "请求数已达上限：上限 {limit}，剩余 {remaining}，本次 {requested}，请在 {wait} 后重试",
    ),
    "rate_limited.tokens": (
        "Rate limit reached for tokens: limit {limit}, remaining {remaining}, requested "
        "{requested}. Try again in {wait}.",
        "token 数已达上限：上限 {limit}，剩余 {remaining}，本次 {requested}，请在 {wait} 后重试",
    ),
    "rate_limited.concurrent": (
        "As many requests as are allowed at once are running: {limit}. Try again in {wait}.",
        "同时运行的请求数已达上限 {limit}，请在 {wait} 后重试",
    ),
    "insufficient_quota": (
        "The quota is used up: limit {limit} tokens, remaining {remaining}, requested {requested}; "
        "there is enough again in {wait}.",
        "配额已用尽：上限 {limit} 个 token，剩余 {remaining}，本次请求 {requested}，{wait} 后可用",
    ),
    "budget_used_up.tokens": (
        "The budget of tenant '{tenant}' for {month} is used up: {limit} tokens, used {used}. The "
        "next month's begins on {next_month} (UTC).",
        "租户 '{tenant}' 在 {month} 的预算已用尽：上限 {limit} 个 token，已用 {used}；"
        "下个月的预算于 {next_month}（UTC）开始",
    ),
    "budget_used_up.money": (
        "The budget of tenant '{tenant}' for {month} is used up: {limit} of money, used {used}. "
        "The next month's begins on {next_month} (UTC).",
        "租户 '{tenant}' 在 {month} 的预算已用尽：费用上限 {limit}，已用 {used}；"
        "下个月的预算于 {next_month}（UTC）开始",
    ),
    "request_over_limit": (
        "The request asks for {requested} tokens with its answer, but the limit is {limit}: it can "
        "never be served.",
        "请求（含回答）需要 {requested} 个 token，而上限为 {limit}，永远无法满足",
    ),
    "request_over_limit.details": (
        "Shorten the prompt, or ask for a shorter answer.",
        "请缩短提示词，或减少要生成的 token 数",
    ),
    "limits_unavailable": (
        "The limits cannot be checked now.",
        "暂时无法检查请求限额",
    ),
    "unavailable": ("The server is unavailable now.", "服务暂不可用"),
    "engine_unavailable": (
        "The inference engine is not available now.",
        "推理引擎暂不可用",
    ),
    "engine_unavailable.details": (
        "It is being restarted; try again in a few seconds.",
        "引擎正在重启，请几秒后重试",
    ),
    "overloaded": (
        "The server has as many requests as it can queue.",
        "服务器排队的请求已满",
    ),
    "overloaded.details": ("Try again in a second.", "请稍后重试"),
    "model_not_loaded": ("The requested model is not loaded.", "请求的模型未加载"),
    "model_not_loaded.details": (
        "Load it first: POST /api/v1/models/{model}/load",
        "请先调用加载接口",
    ),
    "adapter_not_found": (
        "The model '{model}' has no adapter '{adapter}'; it has: {adapters}.",
        "模型 '{model}' 没有适配器 '{adapter}'，可用的适配器：{adapters}",
    ),
    "adapter_not_found.details": (
        "Write the model as {model}:ADAPTER, or {model} alone.",
        "请将模型写为 {model}:适配器，或只写 {model}",
    ),
    "adapter_evicted": (
        "The engine has no room for the adapter now.",
        "引擎暂时没有空间加载该适配器",
    ),
    "adapter_evicted.details": ("Try again in a second.", "请稍后重试"),
    "no_adapters": (
        "The engine of the model '{model}' takes no LoRA adapters: leave out ':{adapter}'.",
        "模型 '{model}' 的引擎不支持 LoRA 适配器，请去掉 ':{adapter}'",
    ),
    "model_changed": (
        "The model '{model}' has changed to another version before the request was answered.",
        "在请求得到回答之前，模型 '{model}' 已切换到另一个版本",
    ),
    "model_changed.details": ("Send the request again.", "请重新发送请求"),
    "model_load_failed": (
        "The model '{model}' could not be loaded: {reason}",
        "模型 '{model}' 加载失败：{reason}",
    ),
    "generation_failed": (
        "The engine stopped this request with an error: {reason}",
        "引擎因错误终止了此请求：{reason}",
    ),
    "unknown_tool_use": (
        "'{param}' is {value}, but no tool_use block before it has this id.",
        "参数 '{param}' 为 {value}，但此前没有具有该 id 的 tool_use 块",
    ),
    "not_continued": (
        "'{param}' ends the conversation, so the answer continues it: it must end with a text.",
        "'{param}' 是对话的结尾，回答将接着它写下去，因此必须以文本结束",
    ),
    "custom_tools_only": (
        "'{param}' is {value}, but this server runs no tools itself: give your own (custom) tools.",
        "参数 '{param}' 为 {value}，但本服务器不运行任何工具，只支持自定义（custom）工具",
    ),
    "model_does_not_think": (
        "'{param}' cannot be enabled: this model does not think before it answers.",
        "参数 '{param}' 不能为 enabled：此模型没有思考过程",
    ),
    "model_always_thinks": (
        "'{param}' cannot be disabled: this model always thinks before it answers.",
        "参数 '{param}' 不能为 disabled：此模型总是先思考再回答",
    ),
}
