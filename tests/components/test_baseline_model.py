import pytest
from tfx.components.evaluator import constants as evaluator_constants
from tfx.types import standard_artifacts

from components.baseline_model.strategy import LastOtherBlessedModelStrategy


def model(artifact_id, class_names=""):
    artifact = standard_artifacts.Model()
    artifact.id = artifact_id
    artifact.set_string_custom_property("class_names", class_names)
    return artifact


def blessing(model_id, blessed=True):
    artifact = standard_artifacts.ModelBlessing()
    artifact.id = 100 + model_id
    artifact.set_int_custom_property(evaluator_constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model_id)
    artifact.set_int_custom_property(evaluator_constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    return artifact


@pytest.mark.parametrize(
    ("models", "blessed", "candidate", "chosen"),
    [
        ([], [], 1, []),
        ([1], [1], 1, []),  # an unchanged second run
        ([1, 2], [1], 2, [1]),
        ([1, 2], [1, 2], 2, [1]),  # an unchanged run after two models
        ([1, 2, 3], [1, 2], 3, [2]),
        ([1, 2], [1, 2], 1, [2]),  # back to the first model's code: it is compared with what is served
        ([1, 2, 3], [1], 3, [1]),  # the second was refused
    ],
)
def test_the_last_blessed_model_but_never_the_candidate(models, blessed, candidate, chosen):
    candidates = [model(candidate)]
    resolved = LastOtherBlessedModelStrategy().resolve_artifacts(
        None,
        {
            "model": [model(artifact_id) for artifact_id in models],
            "model_blessing": [blessing(artifact_id, artifact_id in blessed) for artifact_id in models],
            "candidate": candidates,
        },
    )
    assert [artifact.id for artifact in resolved["model"]] == chosen
    assert [artifact.id for artifact in resolved["model_blessing"]] == [100 + artifact_id for artifact_id in chosen]
    assert resolved["candidate"] == candidates  # TFX wants every input key back


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        (["ab", "ab", "ab"], 2),
        (["ab", "ba", "ab"], 1),  # back to the first classes: compared with the last model that had them
        (["ab", "abc", "ba"], 2),  # none had these: the Evaluator says so of the last one
        (["", "", "ab"], 2),  # from before classes were recorded: the Evaluator asks the model
        (["", "ab", "ba"], 1),
    ],
)
def test_a_model_of_the_same_classes_comes_first(classes, chosen):
    models = [model(index, names) for index, names in enumerate(classes, 1)]
    resolved = LastOtherBlessedModelStrategy().resolve_artifacts(
        None, {"model": models, "model_blessing": [blessing(1), blessing(2)], "candidate": models[2:]}
    )
    assert [artifact.id for artifact in resolved["model"]] == [chosen]
    assert [artifact.id for artifact in resolved["model_blessing"]] == [100 + chosen]
