from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.example_validator.executor import AnomaliesError, Executor, read_anomalies

DECODER = ExamplesToRecordBatchDecoder()
SCHEMA_FILE = Path(__file__).parents[2] / "data" / "schema.pbtxt"


def integers(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**changed):
    """A sound example with some features changed, or absent where they are None."""
    features = {"image": texts(b"image"), "label": integers(0)} | changed
    present = {name: feature for name, feature in features.items() if feature is not None}
    return tf.train.Example(features=tf.train.Features(feature=present))


def balanced(count=10):
    return [example(label=integers(index % 10)) for index in range(count * 10)]


@pytest.fixture
def validate(tmp_path):
    """Runs the executor on examples by split; returns the anomalies artifact."""

    def run(**examples_by_split):
        (tmp_path / "schema").mkdir()
        (tmp_path / "schema" / "schema.pbtxt").write_text(SCHEMA_FILE.read_text())
        schema = standard_artifacts.Schema()
        schema.uri = str(tmp_path / "schema")
        statistics = standard_artifacts.ExampleStatistics()
        statistics.uri = str(tmp_path / "statistics")
        statistics.split_names = artifact_utils.encode_split_names(list(examples_by_split))
        # What StatisticsGen marks its artifacts with: statistics are in FeatureStats.pb.
        statistics.set_string_custom_property("tfx_version", "1.16.0")
        options = tfdv.StatsOptions(schema=tfdv.load_schema_text(str(SCHEMA_FILE)))
        for split, examples in examples_by_split.items():
            batch = DECODER.DecodeBatch([one.SerializeToString() for one in examples])
            stats = stats_impl.generate_statistics_in_memory(batch, options)
            folder = tmp_path / "statistics" / f"Split-{split}"
            folder.mkdir(parents=True)
            (folder / "FeatureStats.pb").write_bytes(stats.SerializeToString())
        anomalies = standard_artifacts.ExampleAnomalies()
        anomalies.uri = str(tmp_path / "anomalies")
        Executor().Do({"statistics": [statistics], "schema": [schema]}, {"anomalies": [anomalies]}, {})
        return anomalies

    return run


def test_data_as_the_schema_says_pass(validate):
    anomalies = validate(train=balanced(), test=balanced(3))
    assert artifact_utils.decode_split_names(anomalies.split_names) == ["train", "test"]
    assert not read_anomalies(anomalies, "train").anomaly_info
    assert not read_anomalies(anomalies, "test").anomaly_info


@pytest.mark.parametrize(
    ("odd", "feature"),
    [
        ({"label": integers(10)}, "label"),
        ({"label": integers(-1)}, "label"),
        ({"label": None}, "label"),
        ({"image": None}, "image"),
        ({"image": texts(b"one", b"two")}, "image"),
        ({"extra": integers(1)}, "extra"),
    ],
    ids=["label too high", "label too low", "no label", "no image", "two images", "extra feature"],
)
def test_one_odd_example_stops_the_run_with_split_and_feature(validate, odd, feature):
    with pytest.raises(AnomaliesError, match=rf"test split, feature '{feature}'") as error:
        validate(train=balanced(), test=[*balanced(), example(**odd)])
    assert "train split" not in str(error.value)


def test_a_split_of_another_type_stops_the_run(validate):
    numbers = [example(image=integers(7), label=integers(index % 10)) for index in range(100)]
    with pytest.raises(AnomaliesError, match=r"test split, feature 'image'.*type"):
        validate(train=balanced(), test=numbers)


def test_a_split_with_other_shares_of_the_classes_stops_the_run(validate):
    skewed = balanced(5) + [example(label=integers(3))] * 20
    with pytest.raises(AnomaliesError, match=r"test split, feature 'label'.*Linfty") as error:
        validate(train=balanced(), test=skewed)
    message = str(error.value)
    assert "between the test and the train split" in message
    assert "maximum difference is: cat" in message
    assert "serving" not in message


def test_anomalies_are_kept_for_whoever_looks_for_the_cause(validate, tmp_path):
    with pytest.raises(AnomaliesError):
        validate(train=balanced(), test=[*balanced(), example(label=integers(10))])
    kept = anomalies_pb2.Anomalies.FromString((tmp_path / "anomalies" / "Split-test" / "SchemaDiff.pb").read_bytes())
    assert list(kept.anomaly_info) == ["label"]
