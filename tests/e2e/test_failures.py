"""Bad data ends a run before training, says what is wrong, and leaves what was pushed."""

import numpy as np
from archives import RECORD_BYTES, write_archive

from pipeline import folder_lock, local_run, runs


def test_truncated_batch_is_named(settings_for, small_batches, tmp_path, capfd):
    batches = {**small_batches, "data_batch_3.bin": small_batches["data_batch_3.bin"][:-1]}
    data = write_archive(tmp_path / "truncated.tar.gz", batches)
    assert local_run.run(settings_for(data=str(data))) == 1
    shown = capfd.readouterr().out
    assert "The run failed in Cifar10ExampleGen" in shown
    assert "data_batch_3.bin" in shown


def test_skewed_test_split_stops_before_training(settings_for, small_batches, tmp_path, capfd):
    records = np.frombuffer(small_batches["test_batch.bin"], np.uint8).reshape(-1, RECORD_BYTES)
    cats = records[records[:, 0] == 3]
    skewed = np.concatenate([records, *[cats] * 5]).tobytes()
    data = write_archive(tmp_path / "skewed.tar.gz", {**small_batches, "test_batch.bin": skewed})
    settings = settings_for(data=str(data))
    assert local_run.run(settings) == 1
    assert "test split, feature 'label'" in capfd.readouterr().out
    run = runs.last_run(settings)
    assert run["ExampleValidator"].failed
    assert "Trainer" not in run
    assert not settings.serving_dir.exists()


def test_test_images_that_are_training_images_stop_it_before_training(settings_for, small_batches, tmp_path, capfd):
    known = small_batches["data_batch_1.bin"][: 5 * RECORD_BYTES]
    test = small_batches["test_batch.bin"][: -len(known)] + known
    data = write_archive(tmp_path / "leaking.tar.gz", {**small_batches, "test_batch.bin": test})
    settings = settings_for(data=str(data))
    assert local_run.run(settings) == 1
    shown = capfd.readouterr().out
    assert "5 of 200 test images are also in train or validation" in shown
    assert "max_test_overlap is 0.01, which allows 2." in shown
    assert "set ALEXNET_MAX_TEST_OVERLAP=0.025" in shown
    assert list(runs.last_run(settings)) == ["Cifar10ExampleGen"]


def test_missing_data_is_named(settings_for, tmp_path, capfd):
    assert local_run.run(settings_for(data=str(tmp_path / "nothing"))) == 1
    assert f"there is nothing at {tmp_path / 'nothing'}" in capfd.readouterr().out


def test_a_second_run_at_once_is_refused(settings_for, capfd):
    settings = settings_for()
    with folder_lock.exclusive(settings.profile_dir):
        assert local_run.run(settings) == 1
    assert "another run is using" in capfd.readouterr().out


def test_a_file_that_is_no_data_is_refused(settings_for, tmp_path, capfd):
    path = tmp_path / "images.zip"
    path.write_bytes(b"not a zip file")
    assert local_run.run(settings_for(data=str(path))) == 1
    assert "images.zip" in capfd.readouterr().out
