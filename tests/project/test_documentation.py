"""The documentation says what the program does: commands, options and settings, none missing and none made up."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from desireline.schema.model import parse

READMES = ["README.md", "README.zh.md"]


@pytest.fixture(scope="session")
def generate(root: Path) -> ModuleType:
    """docs/generate.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("docs_generate", root / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(root: Path) -> list[Path]:
    """What people read: the READMEs and the pages that were written by hand."""
    written = sorted((root / "docs").rglob("*.md"))
    return [*(root / name for name in READMES), *(p for p in written if p.name not in ("cli.md", "settings.md"))]


def shown_commands(path: Path) -> list[list[str]]:
    """Every `desireline …` line of a page's bash blocks, as words."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("desireline ")]


@pytest.mark.parametrize("name", ["settings.md", "cli.md"])
def test_a_generated_page_is_up_to_date(root: Path, generate: ModuleType, name: str) -> None:
    committed = (root / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert committed == generate.PAGES[name](), "run `python docs/generate.py`"


def test_every_setting_is_on_its_page_with_its_meaning(root: Path, generate: ModuleType) -> None:
    page = (root / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| *([^|]*?) \|$", page, flags=re.MULTILINE))
    assert len(generate.setting_names()) > 40
    for name in generate.setting_names():
        assert rows.get(name), f"{name} has no description in schema/model.py"


@pytest.mark.parametrize("readme", READMES)
def test_every_command_is_in_both_readmes_and_on_a_page(root: Path, generate: ModuleType, readme: str) -> None:
    table = (root / readme).read_text(encoding="utf-8")
    written = "\n".join(p.read_text(encoding="utf-8") for p in pages(root) if p.name not in READMES)
    for name in generate.commands():
        assert f"| `desireline {name}" in table, f"{readme} does not list `desireline {name}`"
        if name not in ("demo", "version"):  # these two need no page
            assert f"desireline {name} " in written, f"no page of docs/ shows `desireline {name}`"


def test_every_command_line_shown_is_one_that_the_program_takes(root: Path, generate: ModuleType) -> None:
    known = generate.commands()
    shown = [(path.name, words) for path in pages(root) for words in shown_commands(path)]
    assert len(shown) > 30
    for page, words in shown:
        line = f"{page}: desireline {' '.join(words)}"
        assert words[0] in known, line
        command = known[words[0]]
        options = {opt: p for p in command.params for opt in [*p.opts, *p.secondary_opts] if opt.startswith("-")}
        given = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
        assert not [option for option in given if option not in options], line
        for parameter in command.params:
            if parameter.required and any(opt.startswith("-") for opt in parameter.opts):
                assert set(parameter.opts) & set(given), f"{line} lacks {parameter.opts}"


def test_both_readmes_show_the_same_commands_and_figures(root: Path) -> None:
    english, chinese = (root / name for name in READMES)
    assert shown_commands(english) == shown_commands(chinese)
    texts = [path.read_text(encoding="utf-8") for path in (english, chinese)]
    links = [set(re.findall(r"\]\(([^)]+)\)", text)) - set(READMES) for text in texts]
    assert links[0] == links[1]
    # the section of the demo's results is the one that has the marker
    sections = [
        next(s for s in re.split(r"^## ", text, flags=re.MULTILINE) if "<!-- results -->" in s) for text in texts
    ]
    figures = [sorted(re.findall(r"\d+\.\d+", section)) for section in sections]
    assert figures[0] == figures[1]


def test_every_schema_shown_is_one_that_the_program_takes(root: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in pages(root)]
    shown = [
        block for text in texts for block in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]
    assert shown
    for block in shown:
        schema = parse(yaml.safe_load(block), "the documentation")
        assert schema.source_columns()  # its expressions can be read, too
