"""The chat templates that come with Inflight: one Jinja file each in chat_templates/.

For checkpoints that have none, or none that works; a spec names them.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from build_engines.errors import SpecError

TEMPLATES_DIR = Path(__file__).parent.parent / "chat_templates"


def template_names() -> list[str]:
    """Names of all templates."""
    return sorted(path.stem for path in TEMPLATES_DIR.glob("*.jinja"))


def read_template(name: str) -> str:
    """A template's text. Raises SpecError, naming the templates there are."""
    if name not in template_names():
        known = ", ".join(template_names())
        raise SpecError(f"there is no chat template {name}: choose one of {known}")
    return (TEMPLATES_DIR / f"{name}.jinja").read_text(encoding="utf-8")


def template_hash(name: str) -> str:
    """SHA-256 of a template's text. Raises SpecError, naming the templates there are."""
    return sha256(read_template(name).encode()).hexdigest()
