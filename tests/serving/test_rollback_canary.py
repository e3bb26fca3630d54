"""An older version is served again, and two versions side by side, as the configuration file says."""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mean_colour_models
import numpy as np
import pytest
from waiting import wait_until
from whole_files import write_whole

from serving import client
from serving.answers import ServedModel, ServingError
from serving.server_process import ServerProcess, server_process

FAVOURITES = {1: 3, 2: 7}
"""The class that each version leans to."""

LATEST = ""
ROLLED_BACK = "model_version_policy { specific { versions: 1 } }"
CANARY = """
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 2 }
"""
PROMOTED = """
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 2 }
    version_labels { key: "canary" value: 2 }
"""

Serve = Callable[[str], None]


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_path = tmp_path_factory.mktemp("alexnet")
    for version, favourite in FAVOURITES.items():
        mean_colour_models.save(base_path / str(version), favourite)
    return base_path


@contextmanager
def serving(base_path: Path, folder: Path, model_options: str) -> Iterator[tuple[ServerProcess, Serve]]:
    """A server, and what rewrites its configuration file while it runs."""
    config_file = folder / "models.config"

    def configure(model_options: str) -> None:
        text = f'name: "alexnet" base_path: "{base_path}" model_platform: "tensorflow" {model_options}'
        write_whole(config_file, f"model_config_list {{ config {{ {textwrap.dedent(text)} }} }}")

    configure(model_options)
    flags = [f"--model_config_file={config_file}", "--model_config_file_poll_wait_seconds=0.2"]
    with server_process(flags, folder / "server.log") as server:
        yield server, configure


def versions_that_answer(server: ServerProcess, version: int | None = None, label: str | None = None) -> set[int]:
    """The versions that the two protocols get an answer from, one after the other.

    Raises:
        ServingError: a protocol gets none.
    """
    pixels, images = mean_colour_models.random_images(4)
    answered = set()
    for address, rest in ((server.grpc_address, False), (server.rest_address, True)):
        with client.connect(address, ServedModel("alexnet", version, label), rest=rest) as connection:
            answers = [prediction.probabilities for prediction in connection.predict(images)]
        favourite = mean_colour_models.tell(answers, pixels, list(FAVOURITES.values()))
        answered.add({f: v for v, f in FAVOURITES.items()}[favourite])
    return answered


def version_that_answers(server: ServerProcess, version: int | None = None, label: str | None = None) -> int:
    """The version that both protocols get an answer from, while it does not change."""
    (answered,) = versions_that_answer(server, version, label)
    return answered


def states(server: ServerProcess) -> dict[int, str]:
    with client.connect(server.grpc_address) as connection:
        return {status.version: status.state for status in connection.status()}


def codes(server: ServerProcess, version: int | None = None, label: str | None = None) -> list[str]:
    """The error's code over gRPC and over REST."""
    found = []
    for address, rest in ((server.grpc_address, False), (server.rest_address, True)):
        with (
            client.connect(address, ServedModel("alexnet", version, label), rest=rest) as connection,
            pytest.raises(ServingError) as error,
        ):
            connection.predict(mean_colour_models.random_images(1)[1])
        found.append(error.value.code)
    return found


def test_the_versions_can_be_told_by_their_answers():
    pixels, _ = mean_colour_models.random_images(4)
    first, second = (mean_colour_models.probabilities(pixels, favourite) for favourite in FAVOURITES.values())
    assert np.abs(first - second).max() > 0.1


def test_roll_back_and_forward(base_path: Path, tmp_path: Path):
    with serving(base_path, tmp_path, LATEST) as (server, configure):
        assert version_that_answers(server) == 2
        assert states(server) == {2: "AVAILABLE"}

        configure(ROLLED_BACK)
        wait_until(lambda: states(server) == {1: "AVAILABLE", 2: "END"})
        assert version_that_answers(server) == 1
        assert version_that_answers(server, version=1) == 1
        assert codes(server, version=2) == ["NOT_FOUND", "NOT_FOUND"]

        configure(LATEST)
        wait_until(lambda: states(server) == {1: "END", 2: "AVAILABLE"})
        assert version_that_answers(server) == 2


def test_stable_and_canary(base_path: Path, tmp_path: Path):
    with serving(base_path, tmp_path, CANARY) as (server, configure):
        assert states(server) == {1: "AVAILABLE", 2: "AVAILABLE"}
        assert version_that_answers(server, label="stable") == 1
        assert version_that_answers(server, label="canary") == 2
        assert version_that_answers(server) == 2  # without a label, the newest
        assert codes(server, label="beta") == ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]

        configure(PROMOTED)
        wait_until(lambda: versions_that_answer(server, label="stable") == {2})
        assert version_that_answers(server, label="canary") == 2
        assert version_that_answers(server, version=1) == 1


def test_a_label_does_not_move_to_a_version_that_is_not_there(base_path: Path, tmp_path: Path):
    with serving(base_path, tmp_path, CANARY) as (server, configure):
        configure(CANARY.replace('key: "canary" value: 2', 'key: "canary" value: 9'))
        wait_until(lambda: "version 9" in (tmp_path / "server.log").read_text())
        assert version_that_answers(server, label="canary") == 2
        assert version_that_answers(server, label="stable") == 1
