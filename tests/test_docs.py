"""Documents tell the truth: every example runs, every command and link of the pages exists."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import sightline
from sightline.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(sightline.__path__, "sightline."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_readme_commands():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"^(?:\$ )?sightline ([a-z-]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), target


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The ten lines of README print the numbers that stand below them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    parsed = doctest.DocTestParser().get_doctest(code[1], {}, "README", "README.md", 0)
    result.run(parsed)
    assert result.summarize(verbose=False).failed == 0
