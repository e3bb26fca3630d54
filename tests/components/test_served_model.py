import pytest
from tfx.types import standard_artifacts

from components.served_model.component import ServedModel
from components.served_model.executor import Executor
from components.served_model.presence import holds_model, says_none


def look(base_dir, folder):
    """What the component finds below a base path, as its artifact."""
    model = standard_artifacts.Model()
    model.uri = str(folder)
    component = ServedModel(base_directory=str(base_dir))
    Executor().Do({}, {"model": [model]}, dict(component.exec_properties))
    return model


def serve(base_dir, version, content):
    folder = base_dir / str(version) / "variables"
    folder.mkdir(parents=True)
    (folder / "variables.index").write_bytes(b"index")
    (folder.parent / "saved_model.pb").write_bytes(content)


def test_the_newest_version_is_copied_to_where_a_model_artifact_has_it(tmp_path):
    for version in (9, 10, 2):
        serve(tmp_path / "alexnet", version, f"graph {version}".encode())
    found = look(tmp_path / "alexnet", tmp_path / "found")
    assert (tmp_path / "found" / "Format-Serving" / "saved_model.pb").read_bytes() == b"graph 10"
    assert (tmp_path / "found" / "Format-Serving" / "variables" / "variables.index").exists()
    assert found.get_string_custom_property("version") == "10"
    assert holds_model(found)
    assert not says_none(found)


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_served_is_no_model(tmp_path, exists):
    if exists:
        (tmp_path / "alexnet" / "not-a-version").mkdir(parents=True)
    found = look(tmp_path / "alexnet", tmp_path / "found")
    assert not holds_model(found)
    assert says_none(found)
    assert not found.has_custom_property("version")
