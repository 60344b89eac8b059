"""What the fields of requests do, in English and Chinese: one entry a name on all surfaces."""

from __future__ import annotations

FIELD_WORDS: dict[str, tuple[str, str]] = {
    # the model and the prompt
    "model": (
        "The model's name; `default` or none is the server's default model.",
        "模型名称；`default` 或不填为服务器的默认模型。",
    ),
    "prompt": ("What the model is given.", "提供给模型的提示词。"),
    "messages": ("The conversation so far.", "到目前为止的对话。"),
    "input": ("A text, or a list of them; or token ids.", "文本或文本列表；也可以是 token id。"),
    "requests": ("Each runs at once with the others.", "所有请求同时运行。"),
    "apply_chat_template": (
        "Whether the prompt is one user message; `false` completes the bare text.",
        "是否把提示词当作一条用户消息；`false` 则直接续写文本。",
    ),
    "chat_template": (
        "A Jinja template in place of the model's.",
        "代替模型自带模板的 Jinja 模板。",
    ),
    "chat_template_kwargs": ("Variables for the chat template.", "传给对话模板的变量。"),
    "add_generation_prompt": (
        "Whether the prompt ends with the start of an answer; it does by default.",
        "提示词末尾是否加上回答的开头；默认加上。",
    ),
    "continue_final_message": (
        "Whether the answer continues the last message.",
        "回答是否接着最后一条消息续写。",
    ),
    "echo": (
        "Whether the answer begins with the prompt; in a chat, with the message that it continues.",
        "回答是否以提示词开头；对话中则以被续写的消息开头。",
    ),
    "suffix": ("What follows the text to be filled in.", "待填充文本之后的内容。"),
    "add_special_tokens": (
        "Whether special tokens such as the begin of text are added.",
        "是否添加文本开始符等特殊 token。",
    ),
    "tokens": ("Token ids.", "token id 列表。"),
    "return_token_strs": (
        "Whether the answer has each token's text.",
        "是否返回每个 token 的文本。",
    ),
    # how tokens are chosen
    "temperature": ("0 takes the best token; more is more random.", "0 为贪心解码；越大越随机。"),
    "top_p": ("Only the likeliest tokens of this total.", "仅在累计概率达到此值的 token 中采样。"),
    "top_k": (
        "Only so many of the likeliest; 0 or -1: all.",
        "仅在最可能的 k 个中采样；0 或 -1 为全部。",
    ),
    "min_p": (
        "Only tokens at least this likely, as a share of the likeliest.",
        "仅保留概率不低于最大概率此比例的 token。",
    ),
    "repetition_penalty": (
        "Above 1: tokens that were there before are less likely.",
        "大于 1 时降低已出现 token 的概率。",
    ),
    "presence_penalty": (
        "Taken off the score of tokens that were generated before.",
        "从已生成过的 token 的得分中减去。",
    ),
    "frequency_penalty": (
        "Taken off for each time that a token was generated before.",
        "按 token 已生成的次数从其得分中减去。",
    ),
    "logit_bias": ("Token id to what is added to its score.", "token id 到其得分加值的映射。"),
    "seed": ("The same seed gives the same answer.", "相同的种子得到相同的回答。"),
    "bad_words": ("Words that are never generated.", "禁止生成的词。"),
    "best_of": ("How many answers the best are chosen of.", "从多少个回答中选出最好的。"),
    # how long it goes on
    "max_tokens": ("At most so many tokens are generated.", "最多生成的 token 数。"),
    "max_completion_tokens": ("At most so many tokens are generated.", "最多生成的 token 数。"),
    "max_output_tokens": ("At most so many tokens are generated.", "最多生成的 token 数。"),
    "min_tokens": ("At least so many tokens are generated.", "最少生成的 token 数。"),
    "ignore_eos": (
        "Whether the model's own end is passed over.",
        "是否忽略模型自己的结束符。",
    ),
    "stop": ("Texts that end the answer; they are not shown.", "结束回答的文本，不会显示。"),
    "stop_token_ids": ("Tokens that end the answer.", "结束回答的 token。"),
    "stop_sequences": (
        "Texts that end the answer; they are not shown.",
        "结束回答的文本，不会显示。",
    ),
    # what comes back
    "n": ("How many answers.", "回答的个数。"),
    "stream": ("Whether the answer comes piece by piece.", "是否流式返回。"),
    "stream_options": ("With `stream` only.", "仅与 `stream` 一起使用。"),
    "logprobs": ("Log-probabilities of the tokens.", "返回 token 的对数概率。"),
    "top_logprobs": ("How many alternatives of each token.", "每个 token 返回多少个备选。"),
    "prompt_logprobs": (
        "Log-probabilities of the prompt's tokens.",
        "返回提示词 token 的对数概率。",
    ),
    "return_token_ids": ("Whether the answer has its token ids.", "是否返回 token id。"),
    "dimensions": (
        "Only so many values of each vector, scaled to length 1.",
        "每个向量只保留前若干维并重新归一化。",
    ),
    "encoding_format": ("How vectors are written.", "向量的编码方式。"),
    "modalities": ("Only text can be answered.", "只能回答文本。"),
    # what it must look like
    "response_format": (
        "Any text, a JSON object, or JSON of a schema.",
        "任意文本、JSON 对象或符合模式的 JSON。",
    ),
    "structured_outputs": ("What the answer must match.", "回答必须符合的结构。"),
    "guided_json": ("A JSON schema that the answer matches.", "回答须符合的 JSON 模式。"),
    "guided_regex": ("A regular expression that the answer matches.", "回答须符合的正则表达式。"),
    "guided_choice": ("The answer is one of these.", "回答必须是其中之一。"),
    "guided_grammar": ("A grammar that the answer matches.", "回答须符合的文法。"),
    "text": ("How the answer's text must look.", "回答文本的格式。"),
    # tools and reasoning
    "tools": ("Functions that the model may call.", "模型可以调用的函数。"),
    "tool_choice": ("Whether, or which, tools are called.", "是否调用工具，或调用哪一个。"),
    "parallel_tool_calls": (
        "Whether one answer may have several calls.",
        "一次回答是否可有多个调用。",
    ),
    "max_tool_calls": ("At most so many calls.", "最多调用次数。"),
    "functions": ("Deprecated: use `tools`.", "已弃用：请使用 `tools`。"),
    "function_call": ("Deprecated: use `tool_choice`.", "已弃用：请使用 `tool_choice`。"),
    "reasoning_effort": ("How much the model thinks first.", "模型思考的程度。"),
    "reasoning": ("How the model thinks.", "模型如何思考。"),
    "thinking": ("Whether the model thinks first.", "模型是否先思考。"),
    "system": ("What the model is told before the conversation.", "对话之前给模型的指示。"),
    "output_config": ("How hard the model thinks, and what it must write.", "思考强度与输出格式。"),
    "verbosity": ("How wordy the answer is.", "回答的详细程度。"),
    # the caller's own affairs
    "user": ("For the caller's own records.", "供调用方自己记录。"),
    "metadata": ("For the caller's own records.", "供调用方自己记录。"),
    "safety_identifier": ("For the caller's own records.", "供调用方自己记录。"),
    "prompt_cache_key": ("Taken, and changes nothing.", "可传入，不起作用。"),
    "prompt_cache_retention": ("Taken, and changes nothing.", "可传入，不起作用。"),
    "cache_control": (
        "Taken, and not needed: every prompt's beginning is cached.",
        "可传入，但并不需要：所有提示词的开头都会被缓存。",
    ),
    "context_management": ("Only what changes nothing.", "仅接受不改变上下文的设置。"),
    "speed": ("Only `standard`.", "仅支持 `standard`。"),
    "service_tier": ("Taken, and changes nothing.", "可传入，不起作用。"),
    "store": ("Whether the answer is kept.", "是否保存回答。"),
    "priority": ("Lower is sooner.", "越小越先处理。"),
    "cache_salt": (
        "Cached prompts are shared only among requests of the same salt.",
        "仅在盐值相同的请求之间共享提示词缓存。",
    ),
    # conversations that the server keeps
    "instructions": ("What the model is told before all else.", "最先告诉模型的指示。"),
    "previous_response_id": (
        "The stored response that this one builds on.",
        "本次响应所接续的已保存响应。",
    ),
    "background": (
        "Whether it runs on without the connection; read it with its id.",
        "是否脱离连接在后台运行；可用其 id 读取。",
    ),
    "include": ("What else is shown.", "还要返回哪些内容。"),
    "truncation": (
        "`auto` drops the oldest messages of a conversation that is too long.",
        "`auto` 会丢弃过长对话中最早的消息。",
    ),
    # loading models
    "quantization": ("The variant to load.", "要加载的量化版本。"),
    "prefer_gpu": ("Whether a GPU variant is taken where there is one.", "有 GPU 版本时是否优先。"),
    # API keys
    "name": ("What it is for.", "用途说明。"),
    "tenant": ("Whose it is; `default` if left out.", "所属租户；不填为 `default`。"),
    "scopes": (
        "What it may do: `inference`, `batch`, `models:read`, `models:write`, `metrics`, `admin`; "
        "left out, the first three.",
        "权限：`inference`、`batch`、`models:read`、`models:write`、`metrics`、`admin`；"
        "不填则为前三项。",
    ),
    "models": (
        "Names of the models that it may use, `*` for any letters; left out, all.",
        "可使用的模型名称，`*` 匹配任意字符；不填为全部模型。",
    ),
    "limits": (
        "What it may use up; left out, what the server's settings say.",
        "用量限制；不填则按服务器设置。",
    ),
    "expires_in_s": ("After how many seconds it ends.", "多少秒后过期。"),
    "grace_s": (
        "For how many seconds the old secret is still taken; a day if left out.",
        "旧密钥继续有效的秒数；不填为一天。",
    ),
    "requests_per_minute": ("Requests in a minute.", "每分钟请求数。"),
    "tokens_per_minute": ("Tokens in a minute.", "每分钟 token 数。"),
    "tokens_per_day": ("Tokens in a day.", "每天 token 数。"),
    "concurrent_requests": ("Requests at once.", "并发请求数。"),
    # refused, unless null
    **dict.fromkeys(
        (
            "access_programs",
            "audio",
            "container",
            "diagnostics",
            "inference_geo",
            "user_profile_id",
            "workspace_id",
            "background_options",
            "context_management",
            "conversation",
            "image",
            "moderation",
            "prediction",
            "prompt_cache_options",
            "prompt_cache_retention",
            "web_search_options",
        ),
        ("Not supported: only null is accepted.", "不支持：只接受 null。"),
    ),
}
