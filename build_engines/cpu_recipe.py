"""Makes artefacts of the `cpu` kind: a requantized GGUF file as OpenVINO IR, and a tokenizer."""

from __future__ import annotations

from importlib import metadata

from build_engines.artefact import Limits
from build_engines.progress import Progress
from build_engines.recipe import Produced, Workspace
from build_engines.source import fetch
from build_engines.spec import Spec, Verification

_TOOLS = ("gguf", "openvino", "openvino-genai", "tokenizers")
_TOKENIZER_BYTES = 16 << 20


class CpuRecipe:
    """fetch -> tokenizer -> quantize -> convert -> verify.

    The libraries for it are large and are imported when they are needed.
    """

    def required_bytes(self, spec: Spec, variant: str) -> int:
        """The requantized GGUF file and the IR stand beside each other."""
        from build_engines.gguf_requant import estimated_bytes

        weights = estimated_bytes(spec.num_parameters, spec.variants[variant].quantization)
        return 2 * weights + _TOKENIZER_BYTES

    def produce(
        self, spec: Spec, variant: str, workspace: Workspace, progress: Progress
    ) -> Produced:
        """Builds, and verifies against the unquantized model. Raises BuildError."""
        from build_engines import gguf_file, gguf_requant, openvino_ir, verify
        from build_engines.tokenizers.write import write_tokenizer

        assert isinstance(spec.verify, Verification)  # of this kind's specs
        chosen = spec.variants[variant]
        reader = gguf_file.open_gguf(fetch(spec.source, progress))
        openvino_ir.check_architecture(gguf_file.field(reader, "general.architecture"))

        progress("tokenizer", 0, 1)
        tokenizer_dir = workspace.artefact / "tokenizer"
        write_tokenizer(reader, tokenizer_dir, max_seq_len=spec.max_seq_len)
        progress("tokenizer", 1, 1)

        gguf = workspace.scratch / "model.gguf"
        gguf_requant.requantize(
            reader, gguf, chosen.quantization, lambda done, total: progress("quantize", done, total)
        )

        progress("convert", 0, 0)
        openvino_ir.convert(gguf, workspace.artefact)
        gguf.unlink()
        vocab_size = openvino_ir.check(workspace.artefact)
        progress("convert", 1, 1)

        progress("verify", 0, 0)
        question = verify.render_question(tokenizer_dir, spec.verify)
        answer = verify.ask(workspace.artefact, question)
        verify.judge(answer, question, spec.verify, chosen.tolerance)
        progress("verify", 1, 1)

        return Produced(
            format="openvino_ir",
            source={
                "package": spec.source.package,
                "version": spec.source.version,
                "file": spec.source.file,
                "sha256": spec.source.sha256,
            },
            tools={name: metadata.version(name) for name in _TOOLS},
            limits=Limits(
                max_seq_len=spec.max_seq_len,
                max_input_len=spec.max_seq_len - 1,  # one token must fit behind the prompt
                vocab_size=vocab_size,
            ),
            memory_bytes=answer.memory_bytes,
        )
