"""Conversations, and the prompts that the models' makers document for them or their code gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Message = dict[str, Any]

SYSTEM: Message = {"role": "system", "content": "Be brief."}
HELLO: Message = {"role": "user", "content": "Hello"}
HI: Message = {"role": "assistant", "content": "Hi there"}
CHINESE: Message = {"role": "user", "content": "北京天气如何？"}
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdefghi",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "北京", "days": 2}},
        }
    ],
}
RESULT: Message = {"role": "tool", "content": '{"celsius": 20}', "tool_call_id": "abcdefghi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气 of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TOOL_LINE = (
    '{"type": "function", "function": {"name": "get_weather", "description": "天气 of a city", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": '
    '{"type": "integer"}}, "required": ["city"]}}}'
)
FUNCTION_BLOCK = """\
{
    "name": "get_weather",
    "description": "天气 of a city",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {
                "type": "string"
            },
            "days": {
                "type": "integer"
            }
        },
        "required": [
            "city"
        ]
    }
}"""
TOOL_BLOCK = """\
{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气 of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string"
                },
                "days": {
                    "type": "integer"
                }
            },
            "required": [
                "city"
            ]
        }
    }
}"""
HERMES_TOOLS = f"""\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{TOOL_LINE}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
HERMES_CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京", "days": 2}}\n</tool_call>'
)
HERMES_RESULT = '<tool_response>\n{"celsius": 20}\n</tool_response>'
HARMONY_SYSTEM = f"""\
<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: {datetime.now().date()}

Reasoning: medium

# Valid channels: analysis, commentary, final. Channel must be included for every message."""

# By template: HELLO alone.
QUESTIONS = {
    "chatml": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello"
    "<|im_end|>\n<|im_start|>assistant\n",
    "qwen-2.5": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
    "assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "qwen-3": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "llama-2": "<s>[INST] Hello [/INST]",
    "llama-3": "<s><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>"
    "assistant<|end_header_id|>\n\n",
    "llama-3.1": "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge "
    "Date: December 2023"
    "\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Hello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Hello [/INST]",
    "mistral-tekken": "<s>[INST]Hello[/INST]",
    "gemma": "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n",
    "gemma-3": "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n",
    "phi-3": "<|user|>\nHello<|end|>\n<|assistant|>\n",
    "phi-4": "<|im_start|>user<|im_sep|>Hello<|im_end|><|im_start|>assistant<|im_sep|>",
    "chatglm3": "[gMASK]sop<|user|>\n Hello<|assistant|>",
    "glm-4": "[gMASK]<sop><|user|>\nHello<|assistant|>",
    "deepseek-v3": "<s><｜User｜>Hello<｜Assistant｜>",
    "deepseek-r1": "<s><｜User｜>Hello<｜Assistant｜><think>\n",
    "gpt-oss": HARMONY_SYSTEM + "<|end|><|start|>user<|message|>Hello<|end|><|start|>assistant",
}

# SYSTEM, HELLO, HI, CHINESE: a system message and three turns, in two languages.
CONVERSATIONS = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\n北京天气如何？<|im_end|>"
    "\n<|im_start|>assistant\n",
    "qwen": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\n北京天气如何？<|im_end|>"
    "\n<|im_start|>assistant\n",
    "qwen-2.5": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\n北京天气如何？<|im_end|>"
    "\n<|im_start|>assistant\n",
    "qwen-3": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\n北京天气如何？<|im_end|>"
    "\n<|im_start|>assistant\n",
    "llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hi there </s><s>[INST] "
    "北京天气如何？ [/INST]",
    "llama-3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>"
    "assistant<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\n北京天气如何？<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\n",
    "llama-3.1": "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge "
    "Date: December 2023"
    "\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "Hi there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n北京天气如何？<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Be brief.\n\nHello [/INST] Hi there</s>[INST] 北京天气如何？ [/INST]",
    "mistral-tekken": "<s>[INST]Hello[/INST]Hi there</s>[INST]Be brief.\n\n北京天气如何？[/INST]",
    "gemma-3": "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\nHi "
    "there<end_of_turn>\n<start_of_turn>user\n北京天气如何？<end_of_turn>\n<start_of_turn>"
    "model\n",
    "phi-3": "<|system|>\nBe brief.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi "
    "there<|end|>\n"
    "<|user|>\n北京天气如何？<|end|>\n<|assistant|>\n",
    "phi-4": "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hello"
    "<|im_end|><|im_start|>assistant<|im_sep|>Hi there<|im_end|><|im_start|>user<|im_sep|>"
    "北京天气如何？<|im_end|><|im_start|>assistant<|im_sep|>",
    "chatglm3": "[gMASK]sop<|system|>\n Be brief.<|user|>\n Hello<|assistant|>\n Hi "
    "there<|user|>\n "
    "北京天气如何？<|assistant|>",
    "glm-4": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\nHi there<|user|>\n"
    "北京天气如何？<|assistant|>",
    "deepseek-v3": "<s>Be brief.<｜User｜>Hello<｜Assistant｜>Hi there<｜end▁of▁sentence｜>"
    "<｜User｜>"
    "北京天气如何？<｜Assistant｜>",
    "deepseek-r1": "<s>Be brief.<｜User｜>Hello<｜Assistant｜>Hi there<｜end▁of▁sentence｜>"
    "<｜User｜>"
    "北京天气如何？<｜Assistant｜><think>\n",
    "gpt-oss": HARMONY_SYSTEM
    + "<|end|><|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user"
    "<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>Hi there<|end|>"
    "<|start|>user<|message|>北京天气如何？<|end|><|start|>assistant",
}

# CHINESE, CALL, RESULT with TOOL, where the template tells about tools itself.
TOOL_PROMPTS = {
    "qwen-2.5": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
    f"assistant.\n\n{HERMES_TOOLS}<|im_end|>\n<|im_start|>user\n北京天气如何？<|im_end|>\n"
    f"<|im_start|>assistant\n{HERMES_CALL}<|im_end|>\n<|im_start|>user\n{HERMES_RESULT}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "qwen-3": f"<|im_start|>system\n{HERMES_TOOLS}<|im_end|>\n"
    "<|im_start|>user\n北京天气如何？<|im_end|>\n"
    f"<|im_start|>assistant\n{HERMES_CALL}<|im_end|>\n<|im_start|>user\n{HERMES_RESULT}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama-3.1": "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nGiven the following functions, please respond "
    "with a JSON for a function call with its proper arguments that best answers the "
    "given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and '
    f"its value}}.Do not use variables.\n\n{TOOL_BLOCK}\n\n北京天气如何？<|eot_id|>"
    '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "get_weather", "parameters": '
    '{"city": "北京", "days": 2}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n'
    '"{\\"celsius\\": 20}"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
    "mistral-tekken": f"<s>[AVAILABLE_TOOLS][{TOOL_LINE}][/AVAILABLE_TOOLS]"
    "[INST]北京天气如何？[/INST]"
    '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "北京", "days": 2}, "id": '
    '"abcdefghi"}]</s>[TOOL_RESULTS]{"content": {"celsius": 20}, "call_id": "abcdefghi"}'
    "[/TOOL_RESULTS]",
    "chatglm3": "[gMASK]sop<|system|>\n Answer the following questions as best as you can. You "
    "have access to the following tools:\n[\n"
    + "\n".join(f"    {line}" for line in FUNCTION_BLOCK.split("\n"))
    + "\n]<|user|>\n 北京天气如何？<|assistant|>get_weather\n ```python\n"
    "tool_call(city='北京', days=2)\n```<|observation|>\n {\"celsius\": 20}<|assistant|>",
    "glm-4": "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。"
    "你是基于智谱AI训练的语言模型 GLM-4 "
    "模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。"
    "\n\n# 可用工具\n\n## get_weather\n\n"
    f"{FUNCTION_BLOCK}\n在调用上述函数时，请使用 Json 格式表示调用的参数。<|user|>\n北京天气如何？"
    '<|assistant|>get_weather\n{"city": "北京", "days": 2}<|observation|>\n{"celsius": 20}'
    "<|assistant|>",
    "gpt-oss": HARMONY_SYSTEM
    + "\nCalls to these tools must go to the commentary channel: 'functions'.<|end|>"
    "<|start|>developer<|message|># Tools\n\n## functions\n\nnamespace functions {\n\n"
    "// 天气 of a city\ntype get_weather = (_: {\ncity: string,\ndays?: number,\n}) => any;\n\n"
    "} // namespace functions<|end|><|start|>user<|message|>北京天气如何？<|end|>"
    "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
    '{"city": "北京", "days": 2}<|call|><|start|>functions.get_weather to=assistant'
    '<|channel|>commentary<|message|>{"celsius": 20}<|end|><|start|>assistant',
}

# The parsers that the frontend takes for what such a model writes: of calls, of thoughts.
PARSERS = {
    "chatml": ("hermes", None),
    "qwen": ("hermes", None),
    "qwen-2.5": ("hermes", None),
    "qwen-3": ("hermes", "qwen3"),
    "llama-2": ("hermes", None),
    "llama-3": ("hermes", None),
    "llama-3.1": ("llama3_json", None),
    "mistral": ("hermes", None),
    "mistral-tekken": ("mistral", None),
    "gemma": ("gemma3", None),
    "gemma-3": ("gemma3", None),
    "phi-3": ("hermes", None),
    "phi-4": ("hermes", None),
    "chatglm3": ("chatglm3", None),
    "glm-4": ("glm4", None),
    "deepseek-v3": ("hermes", None),
    "deepseek-r1": ("hermes", "deepseek_r1"),
    "gpt-oss": ("harmony", "gpt_oss"),
}
