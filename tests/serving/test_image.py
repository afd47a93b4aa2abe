"""The image of a bundle, as far as it can be seen without a container runtime."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bentoml
import httpx
import pytest
from bentoml._internal.container import construct_containerfile

from benchmarks.free_port import free_port
from clicktrail.kernels.order import group
from serving import manifest
from tests.serving.conftest import BENTOML, Bundles

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

_READ_ONLY = 'mount --rbind "$1" "$1" && mount -o remount,bind,ro / && shift && exec "$@"'
"""In namespaces of its own: everything is read-only but the folder $1."""


def _stages(bundles: Bundles) -> tuple[str, str, str]:
    """What comes before the stages of the container file, the first stage, and the one that is shipped."""
    text = (bundles.built["fraud"].path / "env/docker/Dockerfile").read_text()
    before, built, shipped = re.split(r"^FROM .*\n", text, flags=re.MULTILINE)
    return before, built, shipped


def test_holds_no_tools_and_is_not_root(bundles: Bundles) -> None:
    """Wheels alone, pinned throughout, no package manager's packages; a user's number that is not root's comes last."""
    before, built, shipped = _stages(bundles)
    assert f"ARG PYTHON=python:{sys.version_info.major}.{sys.version_info.minor}-slim" in before
    assert "apt" not in built + shipped
    assert "--only-binary :all:" in built
    assert "--constraint /tmp/constraints.txt" in built
    assert "pip" not in shipped
    assert re.findall(r"^USER (\d+):(\d+)$", shipped, re.MULTILINE) == [("10001", "10001")]
    assert not re.search(r"^(RUN|COPY|ADD) ", shipped.partition("USER")[2], re.MULTILINE)


def test_what_it_pins_is_what_was_tested(bundles: Bundles) -> None:
    """Every package that the requirements need in turn has one version, theirs among them."""
    folder = bundles.built["fraud"].path / "env/python"
    pinned = (folder / "constraints.txt").read_text().split()
    assert len({one.partition("==")[0] for one in pinned}) == len(pinned)
    assert {re.sub(r"\[.*?\]", "", one) for one in (folder / "requirements.txt").read_text().split()} <= set(pinned)
    assert any(one.startswith("uvicorn==") for one in pinned)


@pytest.mark.parametrize("buildkit", [True, False])
def test_containerize_changes_nothing(
    bundles: Bundles,
    buildkit: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder that BentoML hands to the builder passes the check of its files, which the image's build makes."""
    monkeypatch.chdir("/")  # BentoML 1.4.39 takes the container file's template from below the current folder alone
    bento = bentoml.bentos.Bento.from_path(str(bundles.built["fraud"].path))
    with construct_containerfile(bento, enable_buildkit=buildkit) as (folder, dockerfile):
        assert manifest.check_files(manifest.read(Path(folder)))
        assert Path(dockerfile) == Path(folder) / "env/docker/Dockerfile"


def test_what_it_compiles_is_all_that_a_request_needs(bundles: Bundles) -> None:
    """After what `serving.warm` does, which asks no state, neither the start nor a request compiles anything more."""
    command = [sys.executable, "-c", _COMPILED]
    environ = bundles.environ(PYTHONDONTWRITEBYTECODE="1", CLICKTRAIL_DECISION_LOG="off")
    source = bundles.built["fraud"].path / "src"
    done = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ok  kernels: of 3 views compiled", "[]"]


_COMPILED = """
import sys
from pathlib import Path
from serving import schema, warm
from serving.checks import opened
from serving.endpoints import ENDPOINTS


def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("clicktrail.kernels.")]
    kernels = {one for module in modules for one in vars(module).values() if hasattr(one, "signatures")}
    return {(kernel.__name__, str(signature)) for kernel in kernels for signature in kernel.signatures}


assert warm.main() == 0
before = compiled()
assert before
body = b'{"event_id": "p", "user_id": "ann", "card_id": "card1", "terminal_id": "shop1", "device": "phone", '
body += b'"price_minor": 100, "event_timestamp": "2026-03-02T20:00:00Z"}'
opened(Path.cwd().parent, task="fraud").decide(schema.parse(body, ENDPOINTS["fraud"].fields))
print(sorted(compiled() - before))
"""


def test_serves_from_a_read_only_root(bundles: Bundles, tmp_path: Path) -> None:
    """With nothing to write to but its scratch folder, and with the kernels of the image, it starts and answers."""
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", _READ_ONLY, "sh", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*probe, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make namespaces of his own")
    entry = re.findall(r'^ENTRYPOINT \["sh", "-c", "(.*)", "serve"\]$', _stages(bundles)[2], re.MULTILINE)
    assert entry, "the entry point is another"
    script = entry[0].replace('\\"', '"').replace("/bundle", str(bundles.built["fraud"].path))
    kernels = Path(
        group.stats.cache_path
    )  # what was compiled on this machine, as the image has what its build compiled
    shutil.copytree(kernels, tmp_path / "image" / kernels.name)
    script = script.replace("/opt/kernels", str(tmp_path / "image"))
    port = free_port()
    environ = bundles.environ(
        PATH=f"{BENTOML.parent}:{os.environ['PATH']}",
        HOME=str(tmp_path),
        TMPDIR=str(tmp_path),
        BENTOML_HOME=str(tmp_path / "bentoml"),
        BENTOML_PORT=str(port),
        CLICKTRAIL_DECISION_LOG="off",
        NUMBA_CACHE_DIR=str(tmp_path / "kernels"),
        PYTHONDONTWRITEBYTECODE="1",
    )
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*probe, "sh", "-c", script], cwd=tmp_path, env=environ, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _wait(client, server, tmp_path / "log")
            asked = {"event_id": "p", "user_id": "ann", "card_id": "card1", "terminal_id": "shop1", "device": "phone"}
            answer = client.post("/score", json=asked | {"price_minor": 100})
            assert answer.json()["model"] == bundles.built["fraud"].tag
            # what the autoscaler goes by
            figures = client.get("/metrics").text
            assert re.search(r'^bentoml_service_request_in_progress\{[^}]*endpoint="/score"', figures, re.MULTILINE)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _wait(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"not ready: {log.read_text()[-3000:]}")
