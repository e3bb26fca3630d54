import pytest

from pipeline.cluster import EVERY_STEP, Cluster, amounts_by_step
from pipeline.settings import make_settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "two words"),
        ("image_project_dir", "app"),
        ("volume_dir", "/mnt/../etc"),
        ("artifact_root", "http://bucket"),
        ("artifact_root", "/elsewhere"),
        ("artifact_root", "/mnt/alexnet-other"),
        ("volume_claim", "My_Claim"),
        ("service_account", "-x"),
        ("kubeflow_namespace", "a b"),
        ("step_cpus", "Trainer=many"),
        ("step_cpus", "Trainer="),
        ("step_memory_gb", "0"),
        ("step_memory_gb", "-1,Trainer=8"),
        ("gpu_count", -1),
        ("step_retries", -1),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_the_fields_name(field, value):
    with pytest.raises(ValueError, match=rf"Cluster\.{field} is '?{value}'?; it has to be"):
        Cluster(**{field: value})


@pytest.mark.parametrize("root", ["", "s3://b/p", "gs://b", "minio://mlpipeline/x", "/mnt/alexnet", "/mnt/alexnet/a"])
def test_artifact_roots(root):
    assert Cluster(artifact_root=root).keeps_artifacts_on_volume is root.startswith("/")


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("", {}),
        ("2", {EVERY_STEP: 2.0}),
        ("Trainer=8", {"Trainer": 8.0}),
        (" 0.5 , Trainer = 8 ", {EVERY_STEP: 0.5, "Trainer": 8.0}),
    ],
)
def test_amounts_by_step(text, amounts):
    assert amounts_by_step("step_cpus", text) == amounts


def test_settings_of_the_cluster_are_changed_like_all_others():
    settings = make_settings("sample", {"image": "alexnet:1", "gpu_count": "2", "epochs": "3"})
    assert (settings.cluster.image, settings.cluster.gpu_count, settings.training.epochs) == ("alexnet:1", 2, 3)
