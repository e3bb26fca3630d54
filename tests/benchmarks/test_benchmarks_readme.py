"""Both README.md files are what the committed files give."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import readme


@pytest.mark.parametrize(
    ("page", "parts"), [(readme.README, readme.PARTS), (readme.PROJECT_README, readme.PROJECT_PARTS)]
)
def test_the_page_is_what_the_files_give(page: Path, parts: Mapping[str, readme.Part]):
    text = page.read_text(encoding="utf-8")
    assert readme.render(text, readme.RESULTS_DIR, parts) == text, "run `python -m benchmarks.readme`"


def test_its_pictures_and_links_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", readme.README.read_text()):
        assert "://" in target or (readme.README.parent / target).exists(), target


def page(parts: str) -> str:
    return f"by hand\n{parts}by hand too\n"


MARKERS = "".join(f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n" for name in readme.PARTS)


def test_only_what_is_between_the_markers_changes(tmp_path: Path):
    serving = json.loads((readme.RESULTS_DIR / "serving.json").read_text())
    (tmp_path / "serving.json").write_text(json.dumps(serving))
    (tmp_path / "serving.png").touch()
    rendered = readme.render(page(MARKERS), tmp_path)
    assert rendered.startswith("by hand\n<!-- begin ")
    assert rendered.endswith("-->\nby hand too\n")
    assert "old" not in rendered
    assert rendered.count("Not measured yet.") == len(readme.PARTS) - 1
    assert "![Latency and throughput](results/serving.png)" in rendered
    # The page's own headings stay above those of its parts.
    assert {len(marks) for marks in re.findall(r"^(#+) ", rendered, flags=re.MULTILINE)} == {4}
    assert readme.render(rendered, tmp_path) == rendered


def test_a_missing_marker_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="end serving"):
        readme.render(page(MARKERS.replace("<!-- end serving -->\n", "")), tmp_path)


def test_check_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    path, project_path = tmp_path / "benchmarks.md", tmp_path / "README.md"
    path.write_text(page(MARKERS))
    project_path.write_text(page("<!-- begin results -->\nold\n<!-- end results -->\n"))
    monkeypatch.setattr(readme, "README", path)
    monkeypatch.setattr(readme, "PROJECT_README", project_path)
    monkeypatch.setattr(readme, "RESULTS_DIR", tmp_path)
    assert readme.main(["--check"]) == 1
    assert "python -m benchmarks.readme" in capsys.readouterr().err
    assert path.read_text() == page(MARKERS)
    assert readme.main([]) == readme.main(["--check"]) == 0
    assert "old" not in path.read_text() + project_path.read_text()
