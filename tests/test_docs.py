"""The documentation names only what exists, and shows what the system prints and answers."""

import json
import re
from pathlib import Path
from typing import Final

import pytest
from pydantic_core import to_json

from services.local.__main__ import directions
from services.scoring.engine import decide
from services.scoring.manifest import BUNDLE_ROOT
from services.scoring.registry import load_bundle
from shared.contract.application import EXAMPLE, FIELDS, Field
from shared.contract.parsing import parse_application

_ROOT: Final = Path(__file__).parents[1]
_DOCUMENTS: Final = sorted(
    path.relative_to(_ROOT).as_posix()
    for pattern in ("*.md", "client/*.md", "docs/**/*.md")
    for path in _ROOT.glob(pattern)
)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_PATH: Final = re.compile(r"(?<![\w/.])(?:client|docs|services|shared|tests|\.github)/[\w./-]+")
_TARGET: Final = re.compile(r"\bmake ([a-z][a-z-]+)")


def _text(document: str) -> str:
    return (_ROOT / document).read_text(encoding="utf-8")


def _anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """Relative links, and their anchors, exist."""
    for link in _LINK.findall(_text(document)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = _ROOT / document if not target else (_ROOT / document).parent / target
        assert path.exists(), link
        if anchor:
            assert anchor in _anchors(path), link


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_path_exists(document: str) -> None:
    """A path in code style is a file or a folder of the repository."""
    for code in _CODE.findall(_text(document)):
        for path in _PATH.findall(code):
            assert (_ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_make_target_exists(document: str) -> None:
    """Commands in code style or code blocks name targets of the Makefile."""
    targets = re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE)
    text = _text(document)
    commands = [*_CODE.findall(text), *re.findall(r"^make .*$", text, re.MULTILINE)]
    for command in commands:
        for target in _TARGET.findall(command):
            assert target in targets, target


def test_readme_shows_the_commands_that_make_run_prints() -> None:
    """With the key as a variable."""
    printed = directions(
        *(f"http://127.0.0.1:{port}" for port in (8000, 8001, 8004, 8003)),
        api_key="$KEY",
        folder=_ROOT,
    )
    commands = [line.strip() for line in printed.splitlines() if "curl" in line]
    assert len(commands) == 3
    assert "\n".join(commands) in _text("README.md")


def test_readme_says_first_what_the_product_is_not_meant_for() -> None:
    """Before any command, on the first screen."""
    first_screen, _ = _text("README.md").split("```sh", 1)
    assert "**Not for real credit decisions.**" in first_screen
    assert first_screen.count("\n") < 20


def test_readme_shows_the_answer_of_the_shipped_bundle() -> None:
    """Every member but the id and the time is what the service answers to the printed command."""
    (block,) = re.findall(r"```json\n(.*?)```", _text("README.md"), re.DOTALL)
    shown = json.loads(block)
    bundle = load_bundle(BUNDLE_ROOT, None)
    decided = decide(parse_application(to_json(EXAMPLE)), model=bundle.champion, bundle=bundle)
    answered = json.loads(decided.body)
    for varying in ("prediction_id", "timestamp"):
        assert shown.pop(varying)
        assert answered.pop(varying)
    assert shown == answered


def test_readme_has_the_fields_of_an_application() -> None:
    """Each with its unit, what it may be, and what it means."""
    rows = [
        f"| `{field.name}` | {field.unit or ''} | {'yes' if field.required else 'no'}"
        f" | {_values(field)} | {field.description} |".replace("|  |", "| |")
        for field in FIELDS
    ]
    assert "\n".join(rows) in _text("README.md")


def _values(field: Field) -> str:
    if field.kind == "category":
        return ", ".join(map(str, field.allowed))
    if field.kind == "text":
        return f"at most {field.maximum} characters"
    above = field.exclusive_minimum
    return f"{field.minimum if above is None else f'above {above}'} to {field.maximum:,}"
