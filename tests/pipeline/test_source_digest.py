import pytest

from pipeline.source_digest import PROJECT_ROOT, _closure, file_digest, source_digest


@pytest.fixture
def project(tmp_path):
    files = {
        "models/__init__.py": "",
        "models/features.py": "LABEL = 'label'\n",
        "models/network.py": "from models import features\n\nWIDTH = 3\n",
        "models/training.py": "import os\nfrom models.network import WIDTH\n",
        "models/preprocessing.py": "import models.features\n",
        "components/__init__.py": "",
        "components/reader/__init__.py": "",
        "components/reader/component.py": "from components.reader import executor\n",
        "components/reader/executor.py": "from . import tools\n",
        "components/reader/tools.py": "from .. import reader\n",
        "components/pusher.py": "A = 1\n",
        "pipeline/settings.py": "B = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


ENTRIES = ("models.training", "models.preprocessing", "components.reader", "components.pusher")


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("models/network.py", {"models.training"}),
        ("models/features.py", {"models.training", "models.preprocessing"}),
        ("models/training.py", {"models.training"}),
        ("components/reader/tools.py", {"components.reader"}),
        ("components/pusher.py", {"components.pusher"}),
        ("components/__init__.py", {"components.reader", "components.pusher"}),
        ("pipeline/settings.py", set()),
    ],
)
def test_an_edit_changes_the_digest_of_what_runs_the_file_and_of_nothing_else(project, edited, changed):
    before = {entry: source_digest(entry, root=project) for entry in ENTRIES}
    with open(project / edited, "a", encoding="utf-8") as file:
        file.write("EDITED = True\n")
    after = {entry: source_digest(entry, root=project) for entry in ENTRIES}
    assert {entry for entry in ENTRIES if before[entry] != after[entry]} == changed


def test_comments_and_line_breaks_do_not_count(project):
    before = source_digest("models.training", root=project)
    (project / "models/network.py").write_text("# why\nfrom models import features\n\n\n\nWIDTH = (\n    3\n)\n")
    assert source_digest("models.training", root=project) == before


@pytest.mark.parametrize("entry", ["models.preprocessing", "models.training", "components.evaluator", "serving.server"])
def test_what_decides_over_keras_counts(entry):
    assert "surroundings" in _closure((entry,), PROJECT_ROOT)


def test_unknown_module_is_an_error(project):
    with pytest.raises(FileNotFoundError, match=r"models\.nothing"):
        source_digest("models.nothing", root=project)


def test_the_projects_own_entries_follow_their_imports():
    training, preprocessing = source_digest("models.training"), source_digest("models.preprocessing")
    assert training != preprocessing
    assert len(training) == 16


def test_file_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == "ba7816bf8f01cfea"  # SHA-256 of "abc" (FIPS 180-4, example)
