"""A run's hold on its folder; two runs at once are in tests/e2e/test_concurrent_runs.py."""

import pytest

from pipeline import folder_lock


def test_a_folder_is_in_use_while_a_run_holds_it(tmp_path):
    folder = tmp_path / "cifar10"
    assert not folder_lock.in_use(folder)
    with folder_lock.exclusive(folder):
        assert folder_lock.in_use(folder)
        with pytest.raises(RuntimeError, match=f"another run is using {folder}"), folder_lock.exclusive(folder):
            pass
        assert folder_lock.in_use(folder)
    assert not folder_lock.in_use(folder)
