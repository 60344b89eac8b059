"""What the shipped specs say, held to the families' table and to what is published of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from build_engines.families.table import FAMILIES, check_choice, family_of
from build_engines.ordering import variant_of
from build_engines.spec import HubSource, Spec, load_spec, spec_names
from build_engines.tokenizers.templates import read_template
from frontend.text.reasoning import REASONING_PARSERS
from frontend.text.tool_parsers.registry import TOOL_PARSERS

# The number of weights by the hub's own count (safetensors metadata), the ones that are shared
# counted once. Left out there and here: what is neither matrix, bias nor norm (sinks of gpt-oss,
# biases of DeepSeek's router).
NUM_PARAMETERS = {
    "qwen-7b-chat": 7_721_324_544,
    "qwen-14b-chat": 14_167_290_880,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "llama-2-7b-chat": 6_738_415_616,
    "chatglm3-6b": 6_243_584_000,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.2-3b-instruct": 3_212_749_824,
    "llama-3.3-70b-instruct": 70_553_706_496,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "mixtral-8x7b-instruct-v0.1": 46_702_792_704,
    "gemma-2-9b-it": 9_241_705_984,
    "gemma-3-1b-it": 999_885_952,
    "phi-3.5-mini-instruct": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "glm-4-9b-chat": 9_399_951_360,
    "glm-4-9b-0414": 9_400_279_040,
    "gpt-oss-20b": 20_914_757_184 - 24 * 64,
    "gpt-oss-120b": 116_829_156_672 - 36 * 64,
    "deepseek-v3": 671_026_419_200 - 58 * 256,
    "deepseek-r1": 671_026_419_200 - 58 * 256,
}
SPECS = [spec for spec in map(load_spec, spec_names()) if isinstance(spec.source, HubSource)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_numbers_of_a_spec_give_the_published_count_of_weights(spec: Spec) -> None:
    assert spec.architecture is not None
    assert spec.architecture.num_parameters == NUM_PARAMETERS[spec.name]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_is_of_its_architectures_family(spec: Spec) -> None:
    assert spec.architecture is not None
    assert family_of(spec.architecture).name == spec.family
    assert spec.max_seq_len == spec.architecture.max_position_embeddings


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_listed_variant_can_be_built_somewhere(spec: Spec) -> None:
    assert spec.family is not None
    family = FAMILIES[spec.family]
    for name in spec.variants:
        variant = variant_of(spec, name)
        check_choice(family, variant, None, spec.architecture)
        limit = family.engine.max_seq_len if family.engine else None
        if variant.kind == "tensorrt_llm" and limit is not None:
            assert (variant.max_seq_len or spec.max_seq_len or 0) <= limit, name


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_a_spec_names_is_there(spec: Spec) -> None:
    assert spec.default_variant in spec.variants
    assert spec.tool_parser is None or spec.tool_parser in TOOL_PARSERS
    assert spec.reasoning_parser is None or spec.reasoning_parser in REASONING_PARSERS
    if spec.chat_template is not None:
        read_template(spec.chat_template)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_names_tokens_of_the_vocabulary(spec: Spec) -> None:
    assert spec.architecture is not None
    tokens = spec.tokens
    ids = [*(tokens.eos_ids or []), tokens.bos_id or 0, tokens.pad_id or 0]
    assert len(set(tokens.eos_ids or [])) == len(tokens.eos_ids or []) > 0
    assert max(ids) < spec.architecture.vocab_size


def test_every_model_that_is_fetched_is_counted_here() -> None:
    assert {spec.name for spec in SPECS} == NUM_PARAMETERS.keys()


def test_a_wrong_number_is_seen() -> None:
    spec = load_spec("phi-4")
    assert spec.architecture is not None
    wrong = replace(spec.architecture, num_kv_heads=40)
    assert wrong.num_parameters != NUM_PARAMETERS["phi-4"]
