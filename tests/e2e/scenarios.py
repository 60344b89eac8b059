"""What the scripted model says to outside clients, where a small model has no wit for it."""

from __future__ import annotations

import json
from typing import Any

from triton_models.scripted.script import Scenario

# Qwen2.5's way to write tools, calls and results (Hermes' format), in short.
CHAT_TEMPLATE = """\
{%- macro message(role, text) %}{{ '<|im_start|>' + role + '\\n' + text + '<|im_end|>\\n' }}\
{% endmacro -%}
{%- if tools %}<|im_start|>system
# Tools
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Call them as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif -%}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- message('user', '<tool_response>\\n' + m.content + '\\n</tool_response>') }}
{%- elif m.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- for call in m.tool_calls %}
<tool_call>
{{ call.function | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% else %}
{{- message(m.role, m.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# The same model, taught to think.
THINKING_TEMPLATE = CHAT_TEMPLATE + "{# <think>...</think> #}"

RESULT = "<tool_response>"  # how a tool's result stands in the prompt
JOKE = {"setup": "Why do cats sit on keyboards?", "punchline": "For the mouse."}


def says(name: str, match: str | list[str], text: str) -> Scenario:
    return Scenario(name=name, match=match, text=text, tokens_per_response=2, step_delay_ms=10)


def calls(match: str | list[str], tool: str, arguments: dict[str, Any]) -> Scenario:
    """A call in the model's own format; to a guide what `tool_choice: "required"` asks for."""
    call = {"name": tool, "arguments": arguments}
    forced = [{"name": tool, "parameters": arguments}]
    return Scenario(
        name=tool,
        match=match,
        text=f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>",
        guided_text=json.dumps(forced, ensure_ascii=False),
        tokens_per_response=2,
        step_delay_ms=10,  # what is ready at once comes as one event
    )


# Of several that match the last one speaks.
SCENARIOS = [
    says("hello", "", "Hello! How can I help you?"),
    Scenario(name="slow", match="Count slowly", text="1, 2, 3, " * 100, step_delay_ms=200),
    # the agents' conversation: a call, its result, an answer
    calls("weather in Paris", "get_weather", {"city": "Paris"}),
    says("answer", ["weather in Paris", RESULT], "It is sunny in Paris."),
    Scenario(
        name="broken",
        match="break off",
        text="one two three four",
        step_delay_ms=20,  # tokens that arrive together with an error are not sent
        error="CUDA error",
        error_after=2,
    ),
    # pydantic-ai's own tool for what the agent returns
    calls("weather in Oslo", "get_weather", {"city": "Oslo"}),
    calls(["weather in Oslo", RESULT], "final_result", {"city": "Oslo", "is_sunny": True}),
    # langchain-tests
    calls("magic_function(3)", "magic_function", {"input": 3}),
    calls("magic_function_no_args()", "magic_function_no_args", {}),
    says("joke", "with 'setup' and 'punchline' keys", json.dumps(JOKE)),
    calls(
        "你好啊集团", "unicode_customer", {"customer_name": "你好啊集团", "description": "科技公司"}
    ),
    calls(
        "こんにちは株式会社",
        "unicode_customer",
        {"customer_name": "こんにちは株式会社", "description": "a Japanese company"},
    ),
    calls("weather in San Francisco", "get_weather", {"location": "San Francisco, CA"}),
    says("sunny", ["weather in San Francisco", RESULT], "It is sunny in San Francisco."),
]
THOUGHT_SCENARIOS = [says("thoughts", "", "<think>\nLet me see.\n</think>\n\nIt is Paris.")]
