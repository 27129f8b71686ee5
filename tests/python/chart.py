"""The Helm chart, given helm: it is linted, rendered for each file of tests/helm and compared with what is kept there, and validated
against the schemas of Kubernetes' API. VORRANG_ACCEPT=1 keeps what is rendered now.

chart.py HELM
"""

import copy
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/vorrang"
CASES = sorted((ROOT / "tests/helm").glob("*.values.yaml"))
# The oldest that Chart.yaml allows, and the newest that the validator knows.
VERSIONS = ["1.27", kubernetes_validate.latest_version()]
# Its schema is the Prometheus operator's.
WITHOUT_SCHEMA = {"ServiceMonitor"}
# What a gateway may take after the grace time: answers are read, sessions are closed, spans are sent.
LAST_STEPS_S = 6

# What to change in minimal.values.yaml, and a word of the error.
REFUSED = [
    ({"replicaCount": 2}, "several instances without a Redis"),
    ({"autoscaling": {"enabled": True}}, "several instances without a Redis"),
    ({"replicas": 2}, "replicas"),
    ({"rollout": {"preStop": 1}}, "preStop"),
    ({"adminPort": 4000}, "adminPort"),
    ({"config": None}, "existingConfigMap"),
    ({"rollout": {"terminationGracePeriodSeconds": 49}}, "at least 50"),
    ({"serviceMonitor": {"enabled": True}}, "networkPolicy.adminFrom"),
    ({"ingress": {"enabled": True}}, "ingress.host"),
]

# Several instances that have a Redis.
REDIS = [
    {"redis": {"url": "redis://redis:6379"}},
    {"env": [{"name": "VORRANG_REDIS_URL", "value": "redis://redis:6379"}]},
    {"secrets": {"create": {"VORRANG_REDIS_URL": "redis://redis:6379"}}},
    {"config": {"router_settings": {"redis_host": "redis"}}},
]


def run(*arguments):
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True, env=ENV)


def render(values):
    return run("template", "release", CHART, "--namespace", "llm", "--values", values)


def by_kind(text):
    found = {}
    for document in yaml.safe_load_all(text):
        if document:
            found.setdefault(document["kind"], []).append(document)
    return found


def validate(document):
    if document["kind"] in WITHOUT_SCHEMA:
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            sys.exit(f"{document['kind']} is not Kubernetes {version}'s: {path}: {error.message}")


def check_meaning(case, found):
    """What no schema knows: parts that have to fit one another."""
    [deployment] = found["Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    [container] = spec["containers"]
    hook = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = 30
    if "ConfigMap" in found:
        config = yaml.safe_load(found["ConfigMap"][0]["data"]["config.yaml"])
        grace = config.get("vorrang_settings", {}).get("grace_seconds", 30)
    assert spec["terminationGracePeriodSeconds"] >= hook + grace + LAST_STEPS_S, case
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for service in found["Service"]:
        assert service["spec"]["selector"].items() <= labels.items(), case
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, case
    for monitor in found.get("ServiceMonitor", []):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        selected = [one for one in found["Service"] if wanted <= one["metadata"]["labels"].items()]
        [port] = [port["name"] for one in selected for port in one["spec"]["ports"]]
        assert monitor["spec"]["endpoints"][0]["port"] == port, case
    if "HorizontalPodAutoscaler" in found:
        assert "replicas" not in deployment["spec"], f"{case}: each upgrade would undo what the autoscaler has decided"
    # The probes and the second service ask there.
    assert "--admin-port" in container["args"], case
    assert container["securityContext"]["readOnlyRootFilesystem"] is True, case
    assert spec["automountServiceAccountToken"] is False, case


def check_case(values):
    case = values.name.removesuffix(".values.yaml")
    lint = run("lint", "--strict", CHART, "--values", values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    rendered = render(values)
    assert rendered.returncode == 0, rendered.stderr
    kept = values.with_name(f"{case}.golden.yaml")
    if os.environ.get("VORRANG_ACCEPT"):
        kept.write_text(rendered.stdout)
    before = kept.read_text() if kept.exists() else ""
    if rendered.stdout != before:
        lines = difflib.unified_diff(before.splitlines(), rendered.stdout.splitlines(), str(kept), "rendered now", lineterm="")
        sys.exit("\n".join([*lines, "VORRANG_ACCEPT=1 keeps what is rendered now"]))
    found = by_kind(rendered.stdout)
    for documents in found.values():
        for document in documents:
            validate(document)
    check_meaning(case, found)
    return found


def pod_annotations(values):
    rendered = render(values)
    assert rendered.returncode == 0, rendered.stderr
    [deployment] = by_kind(rendered.stdout)["Deployment"]
    return deployment["spec"]["template"]["metadata"]["annotations"]


def check_restarts(minimal, folder):
    """A change of the configuration changes the pods, and so does one of a secret; with `watchConfig` the first does not."""
    changed = copy.deepcopy(minimal)
    changed["config"]["model_list"][0]["litellm_params"]["rpm"] = 61
    secret = copy.deepcopy(minimal)
    secret["secrets"]["create"]["MASTER_KEY"] = "sk-other"
    file = folder / "values.yaml"
    annotations = []
    for values in [minimal, changed, secret, minimal | {"watchConfig": True}, changed | {"watchConfig": True}]:
        file.write_text(yaml.safe_dump(values))
        annotations.append(pod_annotations(file))
    first, config, secret, watching, watching_changed = annotations
    assert first["checksum/config"] != config["checksum/config"]
    assert first["checksum/secret"] != secret["checksum/secret"]
    assert watching == watching_changed


def main():
    covered = set()
    for values in CASES:
        covered |= check_case(values).keys()
    templates = {path.stem for path in (CHART / "templates").glob("*.yaml")}
    assert {kind.lower() for kind in covered} == templates, covered
    minimal = yaml.safe_load((ROOT / "tests/helm/minimal.values.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "values.yaml"
        _, example = (ROOT / "docs/kubernetes.md").read_text().split("    # values.yaml\n", 1)
        file.write_text(textwrap.dedent(example.split("\n\n", 1)[0]))
        documented = render(file)
        assert documented.returncode == 0, documented.stderr
        assert "Deployment" in by_kind(documented.stdout)
        for change, word in REFUSED:
            file.write_text(yaml.safe_dump(minimal | change))
            refused = render(file)
            assert refused.returncode != 0, f"{change} is accepted"
            assert word in refused.stderr, f"{change}: {refused.stderr}"
        for change in REDIS:
            file.write_text(yaml.safe_dump(minimal | {"replicaCount": 2} | change))
            rendered = render(file)
            assert rendered.returncode == 0, f"{change}: {rendered.stderr}"
        check_restarts(minimal, pathlib.Path(folder))
    print(f"ok: {len(CASES)} cases, Kubernetes {' and '.join(VERSIONS)}")


if __name__ == "__main__":
    HELM = sys.argv[1]
    with tempfile.TemporaryDirectory() as home:
        # Helm finds no repositories, plugins or clusters of this machine.
        ENV = {"HOME": home, "PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null"}
        main()
