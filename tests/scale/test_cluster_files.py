"""The files for clusters, against the schemas of those who read them, and against what the service really offers."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packaging_tools import ROOT
from tests.runtime.tiny_models import TinyModel
from tests.scale.served import Served
from voxport.cli.scale.serve import serve

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
pytest.importorskip("uvicorn")

FOLDER = ROOT / "examples/cluster"
KUBERNETES = "1.34"  # the oldest in which a sleep before the end is no alpha or beta
# Fields of the two custom resources that are used here, by what holds them. KServe's are compared below with the
# models of its package, where that is installed; KubeRay's are those of rayservice_types.go and raycluster_types.go.
KSERVE = {
    "InferenceServiceSpec": {"predictor"},
    "PredictorSpec": {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"},
}
KUBERAY = {
    "RayServiceSpec": {"serveConfigV2", "rayClusterConfig"},
    "RayClusterSpec": {"rayVersion", "headGroupSpec", "workerGroupSpecs"},
    "HeadGroupSpec": {"rayStartParams", "template"},
    "WorkerGroupSpec": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
# Environment variables, and who reads them.
READ = {
    "PGPASSWORD": "libpq, below psycopg",
    "STORAGE_URI": "KServe's storage initializer",
    "PROTOCOL": "KServe's controller",
    "RAY_worker_niceness": "Ray",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "Ray Serve",
}


def documents(name: str) -> dict[str, Any]:
    """What a file holds, by its kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))}


def pods() -> dict[str, dict[str, Any]]:
    """Each PodSpec of the files, with only Kubernetes's own fields."""
    predictor = documents("inferenceservice.yaml")["InferenceService"]["spec"]["predictor"]
    cluster = documents("rayservice.yaml")["RayService"]["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "deployment": documents("deployment.yaml")["Deployment"]["spec"]["template"]["spec"],
        "kserve": {name: value for name, value in predictor.items() if name not in KSERVE["PredictorSpec"]},
        "ray head": cluster["headGroupSpec"]["template"]["spec"],
        "ray workers": workers["template"]["spec"],
    }


PODS = pods()
SERVING = ("deployment", "kserve")


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    found: dict[str, Any] = container
    return found


def validate(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(document, KUBERNETES, strict=True)  # strict: no field that Kubernetes does not know


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_kubernetes_knows_every_field(name: str) -> None:
    found = documents(name)
    assert found
    for kind, document in found.items():
        if kind not in ("InferenceService", "RayService"):
            validate(document)


@pytest.mark.parametrize("pod", PODS)
def test_kubernetes_knows_every_field_of_a_pod_inside_a_custom_resource(pod: str) -> None:
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": PODS[pod]})


def test_the_validator_would_find_a_wrong_field() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    wrong = {"containers": [{"name": "one", "image": "two", "comand": ["three"]}]}
    with pytest.raises(validator.ValidationError):
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": wrong})


def test_kserve_knows_the_fields_of_its_resource() -> None:
    document = documents("inferenceservice.yaml")["InferenceService"]
    assert document["apiVersion"] == "serving.kserve.io/v1beta1"
    assert set(document["spec"]) == KSERVE["InferenceServiceSpec"]
    predictor = document["spec"]["predictor"]
    assert set(predictor) - set(PODS["kserve"]) == KSERVE["PredictorSpec"]
    container = container_of(predictor)
    assert container["name"] == "kserve-container", "by which KServe finds it"
    assert {"STORAGE_URI", "PROTOCOL"} <= {each["name"] for each in container["env"]}
    assert container["args"][1].startswith("/mnt/models/"), "where the storage initializer writes"


@pytest.mark.parametrize("kind", sorted(KSERVE))
def test_the_fields_are_those_of_kserves_own_models(kind: str) -> None:
    """Its package is not imported: it would bring pandas, Kubernetes's client and others."""
    found = importlib.util.find_spec("kserve")
    if found is None or found.origin is None:
        pytest.skip("kserve is not installed; pip install --no-deps --target FOLDER kserve, and PYTHONPATH=FOLDER")
    file = {
        "InferenceServiceSpec": "v1beta1_inference_service_spec.py",
        "PredictorSpec": "v1beta1_predictor_spec.py",
    }[kind]
    source = (Path(found.origin).parent / "models" / file).read_text(encoding="utf-8")
    (names,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "attribute_map"
    )
    assert KSERVE[kind] <= set(names.values())
    if kind == "PredictorSpec":
        assert set(PODS["kserve"]) <= set(names.values())


def test_kuberay_knows_the_fields_of_its_resource() -> None:
    document = documents("rayservice.yaml")["RayService"]
    assert document["apiVersion"] == "ray.io/v1"
    spec = document["spec"]
    cluster = spec["rayClusterConfig"]
    assert set(spec) == KUBERAY["RayServiceSpec"]
    assert set(cluster) == KUBERAY["RayClusterSpec"]
    assert set(cluster["headGroupSpec"]) == KUBERAY["HeadGroupSpec"]
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == KUBERAY["WorkerGroupSpec"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "a map of strings"


# --- what the service offers ----------------------------------------------------------------------------


def chosen(arguments: list[str]) -> dict[str, Any]:
    """What `voxport serve` understands; raises as click does for what it does not."""
    assert arguments[0] == "serve"
    context = serve.make_context("serve", list(arguments[1:]), resilient_parsing=False)
    return dict(context.params)


@pytest.mark.parametrize("name", SERVING)
def test_the_command_line_is_one_that_the_service_takes(name: str) -> None:
    container = container_of(PODS[name])
    found = chosen(container["args"])
    assert found["engine"] == "local", "one process to a pod: Kubernetes has the replicas"
    assert found["host"] == "0.0.0.0", "a pod is asked from outside"
    ports = {each["containerPort"] for each in container["ports"]}
    assert ports == {found["port"], found["grpc_port"]} - {None}
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    mounts += ["/mnt/models"] * (name == "kserve")
    for path in (found["model"], found["keys"]):
        assert path is None or any(path.as_posix().startswith(f"{mount}/") for mount in mounts), path
    assert "/tmp" in mounts, "sounds are written there, and the root cannot be written"
    assert container["resources"]["limits"]["cpu"] == str(found["threads"])


@pytest.mark.parametrize("name", SERVING)
def test_a_pod_has_the_time_to_end(name: str) -> None:
    container = container_of(PODS[name])
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep > 0
    assert PODS[name]["terminationGracePeriodSeconds"] > sleep + chosen(container["args"])["drain"]


@pytest.mark.parametrize("name", SERVING)
def test_the_temporary_folder_holds_what_the_limits_allow(name: str) -> None:
    found = chosen(container_of(PODS[name])["args"])
    (size,) = (each["emptyDir"]["sizeLimit"] for each in PODS[name]["volumes"] if "emptyDir" in each)
    assert int(size.removesuffix("Gi")) * 2**30 > found["queue"] * found["max_mb"] * 1e6


def probes(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, probe in container_of(pod).items():
        if kind.endswith("Probe"):
            yield kind, probe["httpGet"]["path"]


@pytest.mark.parametrize("name", SERVING)
def test_the_probes_ask_what_the_service_answers(served: Served, name: str) -> None:
    asked = dict(probes(PODS[name]))
    assert set(asked) == {"startupProbe", "readinessProbe", "livenessProbe"}
    container = container_of(PODS[name])
    named = {each.get("name"): each["containerPort"] for each in container["ports"]}
    port = chosen(container["args"])["port"]
    for kind in asked:
        probed = container[kind]["httpGet"]["port"]
        assert named.get(probed, probed) == port
    statuses = {kind: served.ask("GET", path).status for kind, path in asked.items()}
    assert set(statuses.values()) == {200}
    served.service.turnstile.leaving = True
    try:
        assert served.ask("GET", asked["readinessProbe"]).status == 503
        assert served.ask("GET", asked["livenessProbe"]).status == 200, "a pod that ends is not killed for it"
    finally:
        served.service.turnstile.leaving = False


def test_prometheus_is_sent_to_the_metrics(served: Served) -> None:
    template = documents("deployment.yaml")["Deployment"]["spec"]["template"]
    notes = template["metadata"]["annotations"]
    port = chosen(container_of(template["spec"])["args"])["port"]
    assert notes["prometheus.io/port"] == str(port)
    reply = served.ask("GET", notes["prometheus.io/path"])
    assert reply.status == 200
    assert b"voxport_requests" in reply.body


@pytest.mark.parametrize("pod", PODS)
def test_environment_variables_are_read_by_somebody(pod: str) -> None:
    from voxport.scale.service import proxy

    for each in container_of(PODS[pod]).get("env", ()):
        assert each["name"] in READ
        if each["name"] == proxy.VARIABLE:
            assert each["value"] == proxy.IMPORT_PATH


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_confined(pod: str) -> None:
    spec, container = PODS[pod], container_of(PODS[pod])
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    tag = container["image"].rpartition(":")[2]
    assert tag[0].isdigit(), "an image by its version, not the latest"


def test_service_and_budget_select_the_pods() -> None:
    found = documents("deployment.yaml")
    template = found["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["selector"].items() <= labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    named = {each["name"] for each in container_of(template["spec"])["ports"]}
    assert {each["targetPort"] for each in found["Service"]["spec"]["ports"]} <= named


# --- Ray Serve ------------------------------------------------------------------------------------------


def unknown(given: Any, model: Any, where: str = "serveConfigV2") -> Iterator[str]:
    """Names that Ray's schema does not have: it would pass over them without a word."""
    for name, value in given.items():
        field = model.model_fields.get(name)
        if field is None:
            yield f"{where}.{name}"
            continue
        inner = inner_model(field.annotation)
        for each in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(each, dict):
                yield from unknown(each, inner, f"{where}.{name}")


def inner_model(annotation: Any) -> Any:
    """The schema inside an annotation such as Optional[List[Schema]]."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for each in getattr(annotation, "__args__", ()) if (found := inner_model(each))), None)


def test_ray_knows_the_serve_configuration(model: TinyModel, tmp_path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray Serve is not installed")
    from voxport.scale.service.replicas import build

    document = documents("rayservice.yaml")["RayService"]
    config = yaml.safe_load(document["spec"]["serveConfigV2"])
    assert list(unknown(config, schema.ServeDeploySchema)) == []
    assert list(unknown({"aplications": []}, schema.ServeDeploySchema)) == ["serveConfigV2.aplications"]
    deployed = schema.ServeDeploySchema.model_validate(config)
    ports = {each["name"]: each["containerPort"] for each in container_of(PODS["ray workers"])["ports"]}
    assert deployed.http_options.port == ports["serve"]
    assert deployed.grpc_options.port == ports["grpc"]
    for function in deployed.grpc_options.grpc_servicer_functions:
        name, _, attribute = function.rpartition(".")
        assert callable(getattr(importlib.import_module(name), attribute))
    (application,) = deployed.applications
    module, _, attribute = application.import_path.partition(":")
    assert getattr(importlib.import_module(module), attribute) is build
    (tmp_path / "keys").write_text("sixteen characters at least\n")
    built = build(application.args | {"model": str(model.path), "keys": tmp_path / "keys"})
    (deployment,) = application.deployments
    assert deployment.name == built._bound_deployment.name
    mounts = [each["mountPath"] for each in container_of(PODS["ray workers"])["volumeMounts"]]
    assert {str(Path(application.args[name]).parent) for name in ("model", "keys")} <= set(mounts)


def test_the_workers_have_room_for_the_replicas() -> None:
    document = documents("rayservice.yaml")["RayService"]["spec"]
    config = yaml.safe_load(document["serveConfigV2"])
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    (group,) = document["rayClusterConfig"]["workerGroupSpecs"]
    cpus = int(container_of(PODS["ray workers"])["resources"]["requests"]["cpu"])
    most = deployment["autoscaling_config"]["max_replicas"] * application["args"]["threads"]
    assert group["replicas"] * cpus >= most
    grace = PODS["ray workers"]["terminationGracePeriodSeconds"]
    sleep = container_of(PODS["ray workers"])["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace > sleep + application["args"]["drain"]


def test_the_image_of_ray_has_the_version_that_the_cluster_is_told() -> None:
    """KubeRay is told Ray's version; the image has that of the lock file."""
    lock = ROOT / "requirements/cpu.txt"
    if not lock.is_file():
        pytest.skip("an installed copy has no lock files")
    (version,) = (line.split("==")[1].split()[0] for line in lock.read_text().splitlines() if line.startswith("ray=="))
    assert documents("rayservice.yaml")["RayService"]["spec"]["rayClusterConfig"]["rayVersion"] == version
