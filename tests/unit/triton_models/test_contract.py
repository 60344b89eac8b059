"""Every config.pbtxt and the README's table say what contract.py says."""

from __future__ import annotations

from pathlib import Path
from string import Template

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import triton_models
from triton_models.contract import KINDS, TensorSpec, markdown_tables
from triton_models.render import RenderError, Value, defaults, model_file, render_config

ROOT = Path(triton_models.__file__).parent

ARTEFACT: dict[str, Value] = {
    "model_name": "m",
    "artefact_dir": "/a",
    "variant": "q8_0",
    "max_seq_len": 8192,
    "max_input_len": 8191,
    "vocab_size": 49152,
}
VALUES: dict[str, dict[str, Value]] = {
    "llm_api": ARTEFACT,
    "cpu": ARTEFACT,
    "llama_cpp": ARTEFACT,
    "scripted": ARTEFACT,
    "embedding": ARTEFACT | {"embedding_size": 384},
    "tensorrt_llm": ARTEFACT
    | {"engine_dir": "/e", "tokenizer_dir": "/t", "xgrammar_tokenizer_info_path": "/x"},
}

# the parameters of TensorRT-LLM 1.2.1's own template
UPSTREAM_PARAMETERS = [
    "max_beam_width",
    "FORCE_CPU_ONLY_INPUT_TENSORS",
    "gpt_model_type",
    "gpt_model_path",
    "encoder_model_path",
    "max_tokens_in_paged_kv_cache",
    "max_attention_window_size",
    "sink_token_length",
    "batch_scheduler_policy",
    "kv_cache_free_gpu_mem_fraction",
    "cross_kv_cache_fraction",
    "kv_cache_host_memory_bytes",
    "kv_cache_onboard_blocks",
    "exclude_input_in_output",
    "cancellation_check_period_ms",
    "stats_check_period_ms",
    "iter_stats_max_iterations",
    "request_stats_max_iterations",
    "enable_kv_cache_reuse",
    "normalize_log_probs",
    "enable_chunked_context",
    "gpu_device_ids",
    "participant_ids",
    "num_nodes",
    "lora_cache_optimal_adapter_size",
    "lora_cache_max_adapter_size",
    "lora_cache_gpu_memory_fraction",
    "lora_cache_host_memory_bytes",
    "lora_prefetch_dir",
    "decoding_mode",
    "executor_worker_path",
    "lookahead_window_size",
    "lookahead_ngram_size",
    "lookahead_verification_set_size",
    "medusa_choices",
    "eagle_choices",
    "gpu_weights_percent",
    "enable_context_fmha_fp32_acc",
    "multi_block_mode",
    "cuda_graph_mode",
    "cuda_graph_cache_size",
    "speculative_decoding_fast_logits",
    "tokenizer_dir",
    "guided_decoding_backend",
    "xgrammar_tokenizer_info_path",
]

FRONTEND_PARAMETERS = ("max_seq_len", "max_input_len", "vocab_size", "variant", "artefact_dir")
DRAFTING_PARAMETERS = ("draft_model", "max_draft_len")  # for the frontend, too


def parse(kind: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(render_config(kind, VALUES[kind]), model_config_pb2.ModelConfig())


def spec_of(tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput) -> TensorSpec:
    datatype = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    is_input = isinstance(tensor, model_config_pb2.ModelInput)
    return TensorSpec(
        tensor.name,
        "BYTES" if datatype == "STRING" else datatype,
        dims=tuple(tensor.dims),
        scalar=tensor.HasField("reshape"),
        ragged=is_input and tensor.allow_ragged_batch,
        required=is_input and not tensor.optional,
    )


def without_note(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.datatype, spec.dims, spec.scalar, spec.ragged, spec.required)


@pytest.mark.parametrize("kind", VALUES)
def test_config_declares_exactly_the_tensors_of_the_contract(kind: str) -> None:
    config = parse(kind)
    inputs, outputs = KINDS[kind]
    assert [spec_of(t) for t in config.input] == [without_note(spec) for spec in inputs]
    assert [spec_of(t) for t in config.output] == [without_note(spec) for spec in outputs]


def test_the_upstream_contract_has_62_inputs_and_21_outputs() -> None:
    inputs, outputs = KINDS["tensorrt_llm"]
    assert (len(inputs), len(outputs)) == (62, 21)
    assert [spec.name for spec in inputs if spec.required] == [
        "input_lengths",
        "request_output_len",
    ]


def test_every_kind_is_rendered_here() -> None:
    assert VALUES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", ["llama_cpp", "scripted"])
def test_models_on_other_engines_have_the_tensors_of_the_cpu_engine(kind: str) -> None:
    assert KINDS[kind] == KINDS["cpu"]


@pytest.mark.parametrize("kind", sorted(VALUES.keys() - {"embedding"}))
def test_models_stream_with_a_batch_axis_on_the_wire(kind: str) -> None:
    config = parse(kind)
    assert config.max_batch_size == 64
    assert config.model_transaction_policy.decoupled


def test_tensorrt_llm_has_every_upstream_parameter() -> None:
    assert set(parse("tensorrt_llm").parameters) == {
        *UPSTREAM_PARAMETERS,
        *FRONTEND_PARAMETERS,
        *DRAFTING_PARAMETERS,
    }


@pytest.mark.parametrize("kind", ["cpu", "llama_cpp"])
def test_the_cpu_engines_queue_by_themselves(kind: str) -> None:
    config = parse(kind)
    assert config.backend == "python"
    assert not config.HasField("dynamic_batching")
    assert {"max_queue_size", "kv_cache_bytes", *FRONTEND_PARAMETERS} <= set(config.parameters)


def test_the_llm_api_engine_queues_by_itself_and_says_so_without_auto_complete() -> None:
    config = parse("llm_api")
    assert config.backend == "python"
    assert not config.HasField("dynamic_batching")
    assert {"max_queue_size", "lora_adapters", *FRONTEND_PARAMETERS} <= set(config.parameters)


def test_a_model_declares_less_than_its_kind_where_its_engine_does_less() -> None:
    undeclared = frozenset({"seed", "cache_salt", "top_log_probs"})
    text = render_config("llm_api", ARTEFACT, undeclared=undeclared)
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    inputs, outputs = KINDS["llm_api"]
    kept = [spec.name for spec in (*inputs, *outputs) if spec.name not in undeclared]
    assert [tensor.name for tensor in (*config.input, *config.output)] == kept


@pytest.mark.parametrize("kind", VALUES)
def test_defaults_are_placeholders_of_the_template(kind: str) -> None:
    template = Template((ROOT / kind / "config.pbtxt").read_text(encoding="utf-8"))
    assert set(defaults(kind)) <= set(template.get_identifiers())


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(RenderError, match=r"no value for cpu/config\.pbtxt: .*artefact_dir"):
        render_config("cpu", {"model_name": "m"})


def test_a_value_that_has_no_placeholder_is_an_error() -> None:
    with pytest.raises(
        RenderError, match=r"no such placeholder in cpu/config\.pbtxt: kv_cache_byte"
    ):
        render_config("cpu", ARTEFACT | {"kv_cache_byte": 1})


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(RenderError, match="no such kind: gpu"):
        render_config("gpu", {})


def test_values_are_quoted_for_the_text_format() -> None:
    odd = 'a "quoted" \\ path\nof ${two} lines'
    text = render_config("cpu", ARTEFACT | {"artefact_dir": odd})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.parameters["artefact_dir"].string_value == odd


def test_only_python_kinds_bring_a_model_file() -> None:
    assert model_file("cpu") == ROOT / "cpu" / "1" / "model.py"
    assert model_file("llm_api") == ROOT / "llm_api" / "1" / "model.py"
    assert model_file("tensorrt_llm") is None


def test_readme_has_the_tables_of_the_contract() -> None:
    assert markdown_tables() in (ROOT / "README.md").read_text(encoding="utf-8")
