"""What learns in the pipeline besides the Trainer: the PreTrainer and the Tuner, which a profile may ask for."""

import json

import pytest
from tfx.dsl.compiler.compiler import Compiler

from components.model_report.lineage import Artifact, Execution
from models.hyperparameters import Hyperparameters
from pipeline import kubeflow, report
from pipeline.pipeline import create_pipeline
from pipeline.settings import BUNDLED_SAMPLE, PROFILES, make_settings

BOTH = {"pretraining_epochs": 3, "tuning_trials": 4, "tuning_epochs": 2, "label_fraction": 0.1}


def components(**changes):
    built = create_pipeline(make_settings("sample", changes), str(BUNDLED_SAMPLE))
    Compiler().compile(built)
    return {component.id: component for component in built.components}


def custom_config(component):
    return json.loads(component.exec_properties["custom_config"])


def test_they_are_there_only_where_they_are_asked_for():
    plain = components()
    assert not {"PreTrainer", "Tuner"} & set(plain)
    assert not {"base_model", "hyperparameters"} & set(plain["Trainer"].inputs)
    assert {name for name, profile in PROFILES.items() if profile.pretraining_epochs} == {"pretrained"}
    assert not any(profile.tuning_trials or profile.label_fraction < 1 for profile in PROFILES.values())


def test_the_trainer_takes_what_they_found():
    found = components(**BOTH)
    trainer, tuner = found["Trainer"], found["Tuner"]
    assert trainer.inputs["base_model"] == found["PreTrainer"].outputs["model"]
    assert trainer.inputs["hyperparameters"] == tuner.outputs["best_hyperparameters"]
    assert tuner.inputs["base_model"] == found["PreTrainer"].outputs["model"]
    assert trainer.inputs["examples"] == tuner.inputs["examples"] == found["PreTrainer"].inputs["examples"]


def test_each_has_its_recipe_and_the_digest_of_its_source():
    found = components(**BOTH)
    configs = {name: custom_config(found[name]) for name in ("PreTrainer", "Tuner", "Trainer")}
    training = PROFILES["sample"].training
    assert {name: config["hyperparameters"]["epochs"] for name, config in configs.items()} == {
        "PreTrainer": 3,
        "Tuner": 2,
        "Trainer": training.epochs,
    }
    assert configs["Trainer"]["hyperparameters"] == training.to_dict()
    assert configs["Tuner"]["trials"] == 4
    assert configs["Trainer"]["label_fraction"] == configs["Tuner"]["label_fraction"] == 0.1
    assert "label_fraction" not in configs["PreTrainer"]  # it sees no label
    digests = {name: found[name].exec_properties["source_digest"] for name in configs}
    assert len(set(digests.values())) == 3
    assert {name: config["source_digest"] for name, config in configs.items()} == digests


def test_all_choose_by_the_validation_split():
    found = components(**BOTH)
    for name in ("PreTrainer", "Tuner", "Trainer"):
        properties = found[name].exec_properties
        assert json.loads(properties["train_args"])["splits"] == ["train"]
        assert json.loads(properties["eval_args"])["splits"] == ["validation"]


def test_what_only_labels_need_does_not_pre_train_again():
    def recipe(**changes):
        return make_settings("sample", {"pretraining_epochs": 3, **changes}).pretraining

    export = {"export_weights": "last", "test_time_flip": True, "test_time_shift": 2}
    assert recipe(epochs=7, label_smoothing=0.2, **export) == recipe()
    assert recipe(learning_rate=0.5) != recipe()


def test_the_profile_pretrained_is_cifar10_with_pre_training():
    assert PROFILES["pretrained"].training == PROFILES["cifar10"].training
    assert PROFILES["pretrained"].data == PROFILES["cifar10"].data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraining_epochs": -1}, "pretraining_epochs is -1; it has to be at least 0"),
        ({"label_fraction": 0.0}, r"label_fraction is 0\.0; it has to be in \(0, 1\]"),
        ({"tuning_trials": -1}, "tuning_trials is -1; it has to be at least 0"),
        ({"tuning_epochs": 0}, "tuning_epochs is 0; it has to be at least 1"),
        ({"pretraining_epochs": 1, "batch_size": 30}, "batch_size is 30; with pretraining_epochs .* a multiple of 4"),
        ({"tuning_trials": 2, "validation_fraction": 0.0}, "the test split would choose the hyperparameters"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_settings("sample", changes)


def test_both_compile_for_kubeflow_and_get_the_gpus(tmp_path):
    pytest.importorskip("kfp", reason="kfp, the client of Kubeflow Pipelines, is not installed")
    yaml = pytest.importorskip("yaml", reason="PyYAML, of the development packages, is not installed")
    cluster = {"image": "registry.example/alexnet:1", "volume_claim": "models", "gpu_count": 1, "gpu_type": "gpu"}
    path = tmp_path / "kubeflow.yaml"
    kubeflow.compile_pipeline(make_settings("smoke", BOTH | cluster), path)
    specification = next(yaml.safe_load_all(path.read_text()))
    tasks = specification["root"]["dag"]["tasks"]
    inputs = tasks["Trainer"]["inputs"]["artifacts"]
    producers = {key: artifact["taskOutputArtifact"]["producerTask"] for key, artifact in inputs.items()}
    assert (producers["base_model"], producers["hyperparameters"]) == ("PreTrainer", "Tuner")
    executors = specification["deploymentSpec"]["executors"]
    with_gpu = {name for name, of in executors.items() if "accelerator" in of["container"].get("resources", {})}
    assert with_gpu == {"PreTrainer_executor", "Tuner_executor", "Trainer_executor"}


def test_the_console_says_what_the_tuner_found_and_how_to_use_it_again(tmp_path):
    trials = [
        {"trial_id": "1", "score": 0.61, "learning_rate": 0.031, "translation": 4},
        {"trial_id": "0", "score": 0.58, "learning_rate": 0.02, "translation": 8},
    ]
    (tmp_path / "tuner_results.json").write_text(json.dumps(trials))
    results = Artifact(id=1, type="TunerResults", uri=str(tmp_path), properties={})
    line = report._tuning(
        Execution(1, "Tuner", 1, "complete", 0.0, 1.0, properties={}, inputs={}, outputs={"tuner_results": results})
    )
    assert line == (
        "validation accuracy 0.6100, best of 2 trials; to use it again: ALEXNET_LEARNING_RATE=0.031 "
        "ALEXNET_TRANSLATION=4"
    )
    changes = dict(word.removeprefix("ALEXNET_").lower().split("=") for word in line.split() if "ALEXNET_" in word)
    assert isinstance(make_settings("sample", changes).training, Hyperparameters)
