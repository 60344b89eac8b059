"""Tools in plain messages, for models whose chat template knows nothing of tools.

The system message tells what may be called and how to write it; calls and results of the history
become the text that the model would have written and read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]  # as chat templates take them


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPrompt:
    """The words for one tool parser's format; `{}` is where JSON goes."""

    instructions: str
    call: str
    arguments_key: str
    result: str


# Source: the chat template of Qwen2.5, which has Hermes 2 Pro's words.
HERMES = ToolPrompt(
    instructions="""\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>""",
    call="<tool_call>\n{}\n</tool_call>",
    arguments_key="arguments",
    result="<tool_response>\n{}\n</tool_response>",
)
# Source: "Function calling with Gemma", ai.google.dev/gemma/docs/capabilities/function-calling.
GEMMA3 = ToolPrompt(
    instructions="""\
You have access to functions. If you decide to invoke any of the function(s), you MUST put it in \
the format of {"name": function name, "parameters": dictionary of argument name and its value}

You SHOULD NOT include any other text in the response if you call a function
{}""",
    call="{}",
    arguments_key="parameters",
    result="```tool_output\n{}\n```",
)
# Source: PROMPT.md of ChatGLM3. What it has written itself is told without its metadata lines.
CHATGLM3 = ToolPrompt(
    instructions="""\
Answer the following questions as best as you can. You have access to the following tools:
{}""",
    call="{}",
    arguments_key="parameters",
    result="{}",
)
DEFAULT = "hermes"
# By the name of the tool parser.
PROMPTS = {DEFAULT: HERMES, "gemma3": GEMMA3, "chatglm3": CHATGLM3, "glm4": CHATGLM3}


def tell_tools(
    prompt: ToolPrompt, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> list[Message]:
    """The messages in words only; with `tools`, the first one is a system message about them."""
    told: list[Message] = []
    role_before = ""
    for message in messages:
        plain = _in_words(prompt, message)
        if message["role"] == role_before == "tool":  # templates want user and assistant by turns
            told[-1]["content"] += "\n" + plain["content"]
        else:
            told.append(plain)
        role_before = message["role"]
    return _with_instructions(prompt, told, tools) if tools else told


def as_user_words(messages: Sequence[Message]) -> list[Message]:
    """A leading system message within the first of the user, for templates that refuse it."""
    system, first, *others = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]


def _with_instructions(
    prompt: ToolPrompt, messages: list[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    instructions = prompt.instructions.replace("{}", lines, 1)
    if messages and messages[0]["role"] == "system":
        first, *others = messages
        return [{**first, "content": f"{first['content']}\n\n{instructions}"}, *others]
    return [{"role": "system", "content": instructions}, *messages]


def _in_words(prompt: ToolPrompt, message: Message) -> Message:
    content = message["content"]
    if message["role"] == "tool":
        return {"role": "user", "content": prompt.result.replace("{}", content, 1)}
    if "tool_calls" not in message:
        return dict(message)
    calls = [
        prompt.call.replace("{}", _call_json(prompt, call["function"]), 1)
        for call in message["tool_calls"]
    ]
    words = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**words, "content": "\n".join([content, *calls] if content else calls)}


def _call_json(prompt: ToolPrompt, function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], prompt.arguments_key: function["arguments"]}
    return json.dumps(call, ensure_ascii=False)
