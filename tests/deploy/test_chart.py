"""The Helm chart, linted, rendered, and validated strictly against the schemas of what it makes."""

import json
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.e2e.processes import ROOT

CHART = ROOT / "deploy" / "helm" / "spreadtrain"
RAY_SCHEMA = ROOT / "deploy" / "schemas" / "raycluster.schema.json"
# The chart says from 1.28 on; the newest has the strictest schemas.
KUBERNETES = ("1.28.0", "1.37.0")
STORE = {"artifacts": {"uri": "s3://artifacts/spreadtrain", "endpoint": "https://s3.example.org"}}
CASES: dict[str, dict[str, Any]] = {
    "defaults": STORE,
    "a cluster that exists": {**STORE, "ray": {"address": "ray.example.org:6379"}},
    "a head that forgets nothing": {
        **STORE,
        "ray": {"redis": {"address": "redis:6379", "secret": "redis"}},
    },
    "everything set": {
        "artifacts": {
            **STORE["artifacts"],
            "region": "eu-central-1",
            "publicEndpoint": "https://files.example.org",
        },
        "image": {"repository": "example.org/spreadtrain", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": ["registry"],
        "service": {
            "replicas": 3,
            "allowedHosts": ["train.example.org"],
            "settings": {"SPREADTRAIN_SWEEP_INTERVAL_S": "3600"},
        },
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"users": "yes"}}}]},
    },
    "no network policy": {**STORE, "networkPolicy": {"enabled": False}},
}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """All manifests of a release."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="demo", namespace="training")
    found = []
    for name, text in files.items():
        if name.endswith(".yaml"):
            found += [manifest for manifest in yaml.safe_load_all(text) if manifest]
    return found


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pod_template(template: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "pod"},
        "template": template,
    }


def kubernetes_parts(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """What of a RayCluster is Kubernetes' own, as manifests of its kinds."""
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    options = spec["autoscalerOptions"]
    container = {"name": "autoscaler"} | {
        key: options[key] for key in ("image", "imagePullPolicy", "resources", "env")
    }
    sidecar = {"spec": {"containers": [container]}}
    return [pod_template(template) for template in (*(g["template"] for g in groups), sidecar)]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_every_manifest_is_strictly_valid(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    schema = json.loads(RAY_SCHEMA.read_text(encoding="utf-8"))
    for manifest in manifests:
        parts = [manifest]
        if manifest["kind"] == "RayCluster":
            jsonschema.validate(manifest, schema)
            parts = kubernetes_parts(manifest)
        for part in parts:
            for version in KUBERNETES:
                kubernetes_validate.validate(part, version, strict=True)


@pytest.mark.parametrize(
    ("break_it", "where"),
    [
        (lambda spec: spec.update(enableInTreeAutoscalling=True), "enableInTreeAutoscalling"),
        (lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "string"),
        (lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"), "maxReplicas"),
    ],
    ids=["a field that KubeRay lacks", "a number for a text", "a field that it needs"],
)
def test_a_ray_cluster_that_kuberay_would_refuse_is_refused(break_it: Any, where: str) -> None:
    cluster = one(rendered(STORE), "RayCluster")
    break_it(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError, match=where):
        jsonschema.validate(cluster, json.loads(RAY_SCHEMA.read_text(encoding="utf-8")))


def test_the_chart_lints_with_nothing_to_say() -> None:
    found = helm_python.lint(CHART, STORE, strict=True)
    assert [m for m in found["messages"] if "icon is recommended" not in m["error"]] == []


def test_by_default_there_is_a_worker_that_jobs_can_have() -> None:
    """The service counts live nodes, and the head offers no core."""
    (cluster,) = [one for one in rendered(STORE) if one["kind"] == "RayCluster"]
    least = {
        group["groupName"]: group["minReplicas"] for group in cluster["spec"]["workerGroupSpecs"]
    }
    assert least == {"cpu": 1, "gpu": 0}


def test_values_that_nobody_reads_and_a_missing_store_are_refused() -> None:
    for values in ({}, {**STORE, "replicas": 3}):
        with pytest.raises(helm_python.HelmError, match="schema"):
            rendered(values)


def test_secrets_are_references_and_pods_are_locked_down() -> None:
    manifests = rendered(CASES["a head that forgets nothing"])
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    cluster = one(manifests, "RayCluster")["spec"]
    pods = [one(manifests, kind)["spec"]["template"]["spec"] for kind in ("Deployment", "Job")]
    pods += [
        g["template"]["spec"] for g in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}
            by_name = {entry["name"]: entry for entry in container["env"]}
            assert secret <= set(by_name)
            assert all("secretKeyRef" in by_name[name]["valueFrom"] for name in secret)


def test_the_services_environment_is_one_that_the_service_starts_with() -> None:
    deployment = one(rendered(CASES["everything set"]), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    environment["SPREADTRAIN_ALLOWED_HOSTS"] = environment["SPREADTRAIN_ALLOWED_HOSTS"].replace(
        "$(POD_IP)", "192.0.2.7"
    )
    settings = Settings.from_environment(environment)
    assert settings.ray_address == "demo-ray-head-svc:6379"
    assert settings.sweep_interval_s == 3600
    assert deployment["spec"]["replicas"] == 3
    assert container["image"].endswith(f"@sha256:{'0' * 64}")


def test_a_cluster_by_address_is_not_made_and_a_gpu_group_asks_for_gpus() -> None:
    kinds = [manifest["kind"] for manifest in rendered(CASES["a cluster that exists"])]
    assert "RayCluster" not in kinds
    groups = one(rendered(STORE), "RayCluster")["spec"]["workerGroupSpecs"]
    limits = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in groups
    }
    assert limits["gpu"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["cpu"]
