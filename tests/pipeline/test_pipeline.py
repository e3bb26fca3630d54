import json

import pytest
from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.components.common.resolver import Resolver

from pipeline import evaluation
from pipeline.pipeline import SERVED, create_pipeline
from pipeline.settings import BUNDLED_SAMPLE, PROFILES, make_settings

WITHOUT_DIGEST = {"StatisticsGen", "LastBlessedModel"}
"""TFX's own code alone, and what is asked anew in every run. All others' results depend on files of this repository."""


def source_digests(built):
    """Digest by component; of those only that have one."""
    found = {component.id: component.exec_properties.get("source_digest") for component in built.components}
    return {name: digest for name, digest in found.items() if digest}


@pytest.fixture(scope="module", params=PROFILES)
def pipeline(request):
    return create_pipeline(PROFILES[request.param], str(BUNDLED_SAMPLE)), PROFILES[request.param]


def test_every_profile_compiles(pipeline):
    built, settings = pipeline
    compiled = Compiler().compile(built)
    assert compiled.pipeline_info.id == f"alexnet_{settings.profile}"
    assert len(compiled.nodes) == 11 + bool(settings.pretraining_epochs)


def test_every_component_that_runs_our_code_has_its_digest(pipeline):
    built, _ = pipeline
    digests = source_digests(built)
    assert {component.id for component in built.components} - set(digests) == WITHOUT_DIGEST
    assert len(set(digests.values())) == len(digests)


def test_the_component_that_finds_the_served_model_has_its_digest():
    built = create_pipeline(PROFILES["smoke"], str(BUNDLED_SAMPLE), baseline=SERVED)
    digests = source_digests(built)
    assert {component.id for component in built.components} - set(digests) == {"StatisticsGen"}
    assert list(digests.values()).count(digests["ServedModel"]) == 1


def test_nothing_trains_on_or_chooses_by_the_test_split_unless_the_profile_says_so(pipeline):
    built, settings = pipeline
    (trainer,) = (component for component in built.components if component.id == "Trainer")
    train = json.loads(trainer.exec_properties["train_args"])["splits"]
    validation = json.loads(trainer.exec_properties["eval_args"])["splits"]
    assert train == ["train"]
    assert validation == (["test"] if settings.profile == "seed" else ["validation"])


def test_the_settings_of_the_data_reach_the_component_that_reads_it():
    settings = make_settings("smoke", {"validation_fraction": "0.25", "max_test_overlap": "0.5"})
    example_gen = create_pipeline(settings, str(BUNDLED_SAMPLE)).components[0]
    told = json.loads(example_gen.exec_properties["custom_config"])["custom_config"]["value"]
    assert told == {"data": str(BUNDLED_SAMPLE), "validation_fraction": 0.25, "max_test_overlap": 0.5}


def test_training_waits_for_the_data_to_be_validated(pipeline):
    built, _ = pipeline
    by_id = {component.id: component for component in built.components}
    assert by_id["ExampleValidator"] in by_id["Transform"].upstream_nodes
    assert by_id["Transform"] in by_id["Trainer"].upstream_nodes


def test_the_gate_reads_raw_examples_of_the_test_split(pipeline):
    built, _ = pipeline
    by_id = {component.id: component for component in built.components}
    evaluator = by_id["Evaluator"]
    assert evaluator.inputs["examples"] == by_id["Cifar10ExampleGen"].outputs["examples"]
    assert json.loads(evaluator.exec_properties["example_splits"]) == ["test"]
    assert any(isinstance(node, Resolver) for node in evaluator.upstream_nodes)


def test_thresholds_of_the_gate_are_those_of_the_settings():
    settings = make_settings("sample", {"accuracy_floor": 0.5, "accuracy_tolerance": 0.03, "class_recall_floor": 0.2})
    metrics = evaluation.eval_config(settings).metrics_specs[0].metrics
    gated = [metric for metric in metrics if metric.per_slice_thresholds]
    assert [json.loads(metric.config)["name"] for metric in gated] == ["accuracy"]
    assert not any(metric.HasField("threshold") for metric in metrics)  # those would hold for every slice
    whole, by_class = gated[0].per_slice_thresholds
    assert not whole.slicing_specs[0].feature_keys
    assert whole.threshold.value_threshold.lower_bound.value == 0.5
    assert whole.threshold.change_threshold.absolute.value == -0.03
    assert list(by_class.slicing_specs[0].feature_keys) == ["label"]
    assert by_class.threshold.value_threshold.lower_bound.value == 0.2
    assert not by_class.threshold.HasField("change_threshold")


def test_the_report_comes_last_and_reads_what_the_run_has_decided(pipeline):
    built, settings = pipeline
    by_id = {component.id: component for component in built.components}
    report = by_id["ModelReport"]
    assert built.components[-1] is report
    assert report.inputs["pushed_model"] == by_id["Pusher"].outputs["pushed_model"]
    assert report.inputs["baseline_model"] == by_id["LastBlessedModel"].outputs["model"]
    reported = json.loads(report.exec_properties["settings"])
    assert reported["training"] == settings.training.to_dict()
    others = {name: digest for name, digest in source_digests(built).items() if name != report.id}
    assert json.loads(report.exec_properties["source_digests"]) == others


def test_settings_that_change_no_outcome_do_not_make_the_report_again():
    def parameters(**changes):
        built = create_pipeline(make_settings("smoke", changes), str(BUNDLED_SAMPLE))
        return built.components[-1].exec_properties

    assert parameters(verbose=True, enable_cache=False) == parameters()
    assert parameters(accuracy_floor=0.2) != parameters()


def test_a_password_is_not_among_the_reports_parameters():
    connection = ConnectionConfig()
    connection.mysql.host, connection.mysql.password = "metadata", "secret"
    built = create_pipeline(PROFILES["smoke"], str(BUNDLED_SAMPLE), metadata_connection=connection)
    assert json.loads(built.components[-1].exec_properties["metadata_connection"]) == {"mysql": {"host": "metadata"}}


@pytest.mark.parametrize(
    ("choice", "component"),
    [("local_server", "ServingValidator"), ("docker", "InfraValidator"), ("kubernetes", "InfraValidator")],
)
def test_a_candidate_serves_on_trial_before_it_is_pushed(choice, component):
    built = create_pipeline(make_settings("sample", {"serving_validation": choice}), str(BUNDLED_SAMPLE))
    by_id = {node.id: node for node in built.components}
    assert by_id["Pusher"].inputs["infra_blessing"] == by_id[component].outputs["blessing"]
    assert by_id["Pusher"].inputs["model_blessing"] == by_id["Evaluator"].outputs["blessing"]
    Compiler().compile(built)
