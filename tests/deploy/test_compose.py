"""The image and the compose stack, as far as no container engine is needed."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.processes import ROOT

COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose.env.example"
DOCKERFILES = (
    "Dockerfile",
    "deploy/standins/postgres.Dockerfile",
    "deploy/standins/seaweedfs.Dockerfile",
)
OURS = {"settings", "migrations", "ray-head", "ray-worker", "ray-worker-gpu", "service"}
SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The stack as podman-compose reads it, with all profiles and the example's values.

    It asks podman's version first, and nothing else of it; so something that says one will do.
    """
    folder = tmp_path_factory.mktemp("engine")
    podman = folder / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.6.0\n", encoding="utf-8")
    podman.chmod(0o755)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podman_compose", f"--file={COMPOSE}", f"--env-file={EXAMPLE}"),
            *("--profile=gpu", "--profile=monitoring", "config"),
        ],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_the_linters_have_nothing_to_say() -> None:
    hadolint = [str(SCRIPTS / "hadolint"), "--failure-threshold=warning", *DOCKERFILES]
    schema = [
        str(SCRIPTS / "check-jsonschema"),
        "--builtin-schema=vendor.compose-spec",
        str(COMPOSE),
    ]
    for command in (hadolint, schema):
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_starts_without_secrets_of_ones_own() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    for name in re.findall(r"^([A-Z0-9_]+)=replace-me", EXAMPLE.read_text("utf-8"), re.MULTILINE):
        assert f"${{{name}:?" in text, f"{name} may be empty"


def test_only_the_service_s3_and_grafana_are_published_and_on_loopback(
    stack: dict[str, Any],
) -> None:
    published = {name: of["ports"] for name, of in stack["services"].items() if "ports" in of}
    assert published == {
        "service": ["127.0.0.1:8000:8000"],
        "seaweedfs": ["127.0.0.1:8333:8333"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_every_container_is_locked_down_and_pinned(stack: dict[str, Any]) -> None:
    assert set(stack["services"]) >= OURS | {"postgres", "seaweedfs", "prometheus", "grafana"}
    for name, container in stack["services"].items():
        assert container["read_only"], name
        assert container["cap_drop"] == ["ALL"], name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert any(str(mount).startswith("/tmp:") for mount in container["tmpfs"]), name
        if name not in OURS:
            assert re.search(r":[^:@]+@sha256:[0-9a-f]{64}$", container["image"]), name


def test_the_image_is_pinned_by_digest_and_runs_as_nobody() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(
        r"^ARG PYTHON_IMAGE=\S+:3\.11\S*@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE
    )
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)


def test_parts_start_when_what_they_need_is_ready(stack: dict[str, Any]) -> None:
    needs = {
        name: {other: condition["condition"] for other, condition in of["depends_on"].items()}
        for name, of in stack["services"].items()
        if "depends_on" in of
    }
    waits = re.search(r"prepare --wait-s (\d+)", str(stack["services"]["migrations"]["command"]))
    assert waits is not None  # for database and store
    assert int(waits[1]) >= 120
    assert needs["service"] == {
        "migrations": "service_completed_successfully",
        "ray-head": "service_healthy",
    }
    assert needs["ray-worker"] == {"ray-head": "service_healthy"}
    for first in ("postgres", "seaweedfs", "ray-head", "migrations"):
        assert needs[first] == {"settings": "service_completed_successfully"}


def test_what_must_last_is_in_volumes(stack: dict[str, Any]) -> None:
    mounts = {name: str(of.get("volumes", "")) for name, of in stack["services"].items()}
    for name in ("postgres", "seaweedfs", "service", "prometheus", "grafana"):
        assert name in stack["volumes"]
        assert f"{name}:/" in mounts[name]


def test_prometheus_asks_the_service_and_grafana_asks_prometheus(stack: dict[str, Any]) -> None:
    deploy = ROOT / "deploy"
    prometheus = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": ["service:8000"]}]
    provisioning = deploy / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    boards = yaml.safe_load((provisioning / "dashboards" / "spreadtrain.yml").read_text("utf-8"))
    folder = boards["providers"][0]["options"]["path"]
    assert any(f":{folder}:" in str(mount) for mount in stack["services"]["grafana"]["volumes"])
