"""Container files and manifests: valid, hardened, and about things that exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from clicktrail import settings
from ingestion.http_intake import Door
from ingestion.live import LiveIntake
from serving.endpoints import ENDPOINTS
from serving.manifest import TASKS
from serving.schema import parse
from tests.docs.guide import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
GUIDE = ROOT / "docs" / "guides" / "deploy.md"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
NO_MANIFESTS = {"kustomization.yaml", "metrics-adapter.yaml"}
LIVE = "clicktrail-live"

Manifest = dict[str, Any]


def manifests() -> list[tuple[str, Manifest]]:
    """Every Kubernetes object, with the file that it stands in."""
    paths = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name not in NO_MANIFESTS)
    return [(path.name, one) for path in paths for one in yaml.safe_load_all(path.read_text())]


def pods() -> Iterator[tuple[str, Manifest]]:
    """The pods of every workload."""
    for _, one in manifests():
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["metadata"]["name"], one["spec"]["template"]


def containers() -> Iterator[tuple[str, Manifest]]:
    """Every container, those that run first among them."""
    for name, pod in pods():
        for one in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield f"{name}/{one['name']}", one


@pytest.mark.parametrize("manifest", [pytest.param(one, id=f"{file} {one['kind']}") for file, one in manifests()])
def test_kubernetes_knows_every_field(manifest: Manifest) -> None:
    """Each object keeps its kind's schema, of the newest release and of one two years older."""
    for version in (kubernetes_validate.latest_version(), "1.31"):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_compose_knows_every_field() -> None:
    """The Compose file keeps the specification's schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_kustomization_has_them_all() -> None:
    """Every manifest is applied, and every image of ours is one whose tag is set there."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in KUBERNETES.glob("*.yaml")} - NO_MANIFESTS
    images = {one["image"] for _, one in containers()}
    assert {one["name"] for one in kustomization["images"]} == {one for one in images if one.startswith("clicktrail-")}
    assert {one for one in images if ":" in one} == {COMPOSE["services"]["redis"]["image"]}


@pytest.mark.parametrize("pod", [pytest.param(one, id=name) for name, one in pods()])
def test_a_pod_may_do_nothing(pod: Manifest) -> None:
    """Not root, without a token, with the runtime's seccomp profile."""
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("container", [pytest.param(one, id=name) for name, one in containers()])
def test_a_container_may_do_nothing(container: Manifest) -> None:
    """Read-only root, no capabilities, no new privileges, and limits of what it takes."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    assert all(part.keys() == {"cpu", "memory"} for part in container["resources"].values())


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_of_compose_may_do_nothing(name: str) -> None:
    """Read-only root, no capabilities, no new privileges, not root, and limits of what it takes."""
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert "healthcheck" in service or name == "apply"
    # what reaches a machine's other users is the machine's own business
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_redis_evicts_nothing_and_keeps_every_write() -> None:
    """Both ways of running Redis say so; a state that lost keys would be refused."""
    (container,) = (one for name, one in containers() if name == "redis/redis")
    for command in (COMPOSE["services"]["redis"]["command"], container["args"][0]):
        assert "--maxmemory-policy noeviction" in command
        assert "--appendonly yes" in command


def test_the_tasks_differ_in_nothing_but_the_task() -> None:
    """What was tuned for one service holds for all."""
    texts = {(KUBERNETES / f"{task}.yaml").read_text().replace(task, "TASK") for task in TASKS}
    assert len(texts) == 1


def test_every_variable_is_one_that_the_settings_know() -> None:
    """No manifest, container file or line of the guide sets a variable that nobody reads."""
    known = set(re.findall(r"^(CLICKTRAIL_\w+)", settings.__doc__ or "", re.MULTILINE))
    for path in (*DEPLOY.rglob("*"), GUIDE):
        if path.is_file() and path.suffix != ".lock":
            assert set(re.findall(r"\bCLICKTRAIL_\w+", path.read_text())) <= known, path


def test_the_secret_of_the_guide_has_the_keys_that_are_asked_for() -> None:
    """Every key that a pod takes from the secret is made by the guide's command, and no other."""
    asked = {entry["valueFrom"]["secretKeyRef"]["key"] for _, one in containers() for entry in one.get("env", ())}
    assert asked == set(re.findall(r"--from-literal=([\w-]+)=", GUIDE.read_text()))


def _commands() -> Iterator[tuple[list[str], int | None]]:
    """What the live image is told to run, and the port that is declared or asked for its health."""
    for _, one in containers():
        if one["image"] == LIVE and "args" in one and one["args"][0] == "python":
            yield one["args"], one["ports"][0]["containerPort"]
    for service in COMPOSE["services"].values():
        if service["image"].startswith(LIVE) and service["command"][0] == "python":
            yield service["command"], int(re.findall(r"127\.0\.0\.1:(\d+)/", service["healthcheck"]["test"][-1])[0])


def test_what_is_run_exists_and_listens_where_it_is_asked() -> None:
    """Modules of the live image are there, its container file brings them, and ports agree."""
    copied = set(re.findall(r"^COPY (\w+) /app/", (DEPLOY / "live.Dockerfile").read_text(), re.MULTILINE))
    found = list(_commands())
    assert len(found) == 4
    for (_, _, module, *options), port in found:
        assert importlib.util.find_spec(module), module
        assert module.partition(".")[0] in copied
        assert str(port) in options


def test_probes_ask_for_what_the_intake_answers(tmp_path: Path) -> None:
    """Every path that a probe asks the intake for is a route of it."""
    paths = {route.path for route in Door(LiveIntake(settings.Settings(home=tmp_path)), token="").app.routes}
    for name, one in containers():
        probes = [one[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in one]
        assert probes or name == "live/apply"
        if name == "live/intake":
            assert {probe["httpGet"]["path"] for probe in probes} <= paths


def test_the_adapter_counts_requests_of_every_endpoint() -> None:
    """Requests in flight are those of the services' own paths."""
    rule = yaml.safe_load((KUBERNETES / "metrics-adapter.yaml").read_text())["rules"]["custom"][0]
    counted = re.findall(r'endpoint=~"([^"]+)"', rule["metricsQuery"])[0].split("|")
    assert set(counted) == {one.path for one in ENDPOINTS.values()}
    metrics = {
        metric["pods"]["metric"]["name"]
        for _, one in manifests()
        if one["kind"] == "HorizontalPodAutoscaler"
        for metric in one["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    assert metrics == {rule["name"]["as"]}


def test_the_request_of_the_guide_is_answered() -> None:
    """It passes the endpoint's own rules."""
    ((path, body),) = re.findall(r"localhost:3003(/\w+) -d '(.*?)'", GUIDE.read_text(), re.DOTALL)
    assert path == ENDPOINTS["fraud"].path
    assert parse(body.encode(), ENDPOINTS["fraud"].fields)["price_minor"] == 5990
