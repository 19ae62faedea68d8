"""What the operator's configuration forbids or delays."""

import subprocess

import kit
import pytest
import yaml
from kit import wait_for
from local import PROGRAM

pytestmark = pytest.mark.serial


@pytest.fixture
def configured(operator):
    def configure(**sections):
        config = yaml.safe_load((kit.ROOT / "manifests/overlays/test/config.yaml").read_text())
        for key, value in sections.items():
            config[key] = config.get(key, {}) | value
        operator.configure(yaml.safe_dump(config))

    yield configure
    operator.configure(None)


def test_one_a_node(space, configured):
    """The second waits, Pending, and runs when the first has ended; so on each node alone."""
    configured(limits={"maxConcurrentPerNode": 1, "maxDuration": "1m"})
    pods = [space.start("busy_threads.py", node=n) for n in (1, 1, 2)]
    first, second, elsewhere = (pod.wait_until_ready() for pod in pods)
    long = space.apply(first, duration="8s")
    space.running(long)
    waiting = space.apply(second, duration="1s")
    space.wait(waiting, "reason", lambda s: s.get("reason") == "LimitReached")
    beside = space.apply(elsewhere, duration="1s")
    space.completed(beside)
    profile = space.profile(waiting)
    assert profile["status"]["phase"] == "Pending"
    assert "maxConcurrentPerNode (1)" in profile["status"]["message"]
    assert space.jobs(profile) == []
    assert space.profile(long)["status"]["phase"] == "Running"
    done = space.completed(waiting)["status"]
    assert done["reason"] == "" and done["startTime"] >= space.profile(long)["status"]["startTime"]
    too_long = space.apply(first, duration="61s")
    space.failed(too_long, "ProfilingDenied", "limits.maxDuration")


def test_image_that_is_not_there(space, configured):
    configured(runner={"image": "localhost/nothing:dev"})
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, startDeadlineSeconds=6)
    space.wait(name, "reason", lambda s: s.get("reason") == "ImagePullFailed")
    profile = space.failed(name, "ImagePullFailed", "localhost/nothing:dev", timeout=20)
    wait_for("removal of the Job", lambda: not space.jobs(profile), 15)
    assert not pod.python()[0].is_stopped()


def test_a_configuration_with_a_mistake_is_refused(tmp_path):
    """The line, the key and what was expected; unknown keys are mistakes."""
    for text, words in (
        ("runner:\n  image: a/b:c\n  imagee: x\n", ("imagee", "line 3")),
        ("runner:\n  image: a/b:c\nlimits:\n  maxConcurrent: 0\n", ("maxConcurrent", "1")),
        ("runner: {}\n", ("runner.image",)),
        ("runner:\n  image: [\n", ("line",)),
    ):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        done = subprocess.run([PROGRAM, f"--config={file}"], capture_output=True, text=True)
        assert done.returncode == 2
        assert not [w for w in words if w not in done.stderr], done.stderr
