import pytest
import speed_data

from benchmarks.experiments import Examples


@pytest.fixture(scope="session")
def few_examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """128 training, 16 validation and 64 test images, and the Transform graph."""
    return speed_data.make_examples(tmp_path_factory.mktemp("few"))
