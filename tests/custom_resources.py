"""The fields of KServe's, KEDA's and the Prometheus Operator's resources.

They are what `kubernetes-validate` has no schemas of.

Read from their definitions, each at its newest release in August 2026; of a table of fields that
are Kubernetes' own, the names stand in a constant and what they hold is checked as a Pod, a
Deployment or a HorizontalPodAutoscaler.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
ANY: Schema = {}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}


def fields(required: str = "", **known: Schema) -> Schema:
    """An object of known fields and no others."""
    return {
        "type": "object",
        "properties": known,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(item: Schema) -> Schema:
    """An array of at least one."""
    return {"type": "array", "items": item, "minItems": 1}


def resource(api_version: str, kind: str, spec: Schema) -> Schema:
    """A resource of one version and kind."""
    metadata = fields("name", name=TEXT, namespace=TEXT, labels=LABELS, annotations=LABELS)
    return fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


def also(names: str) -> dict[str, Schema]:
    """Fields of Kubernetes' own, by name."""
    return dict.fromkeys(names.split(), ANY)


# Pod fields that both of KServe's resources have.
_SHARED = "affinity hostIPC imagePullSecrets nodeSelector resourceClaims schedulerName tolerations"

# kserve/kserve 0.20.0, config/crd/full/serving.kserve.io_clusterservingruntimes.yaml, v1alpha1.
RUNTIME_POD_FIELDS = f"containers volumes {_SHARED}"
CLUSTER_SERVING_RUNTIME = resource(
    "serving.kserve.io/v1alpha1",
    "ClusterServingRuntime",
    fields(
        "containers",
        annotations=LABELS,
        labels=LABELS,
        builtInAdapter=fields(
            env=ANY,
            memBufferBytes=NUMBER,
            modelLoadingTimeoutMillis=NUMBER,
            runtimeManagementPort=NUMBER,
            serverType=TEXT,
        ),
        disabled=FLAG,
        grpcDataEndpoint=TEXT,
        grpcEndpoint=TEXT,
        httpDataEndpoint=TEXT,
        multiModel=FLAG,
        protocolVersions=TEXTS,
        replicas=NUMBER,
        storageHelper=fields(disabled=FLAG),
        supportedModelFormats=several(
            fields("name", name=TEXT, version=TEXT, autoSelect=FLAG, priority={"type": "integer"})
        ),
        workerSpec=ANY,
        **also(RUNTIME_POD_FIELDS),
    ),
)

# kserve/kserve 0.20.0, config/crd/full/serving.kserve.io_inferenceservices.yaml, v1beta1.
# Frameworks of its own (sklearn, triton, ...) are left out: ours is `model`.
PREDICTOR_POD_FIELDS = (
    f"containers volumes {_SHARED} activeDeadlineSeconds automountServiceAccountToken dnsConfig "
    "dnsPolicy enableServiceLinks hostAliases hostNetwork hostPID hostUsers hostname "
    "initContainers nodeName os overhead preemptionPolicy priority priorityClassName "
    "readinessGates restartPolicy runtimeClassName schedulingGates securityContext "
    "serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds topologySpreadConstraints"
)
MODEL_CONTAINER_FIELDS = (
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports "
    "readinessProbe resizePolicy resources restartPolicy securityContext startupProbe "
    "terminationMessagePath terminationMessagePolicy volumeDevices volumeMounts workingDir"
)
INFERENCE_SERVICE = resource(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    fields(
        "predictor",
        canary=ANY,
        explainer=ANY,
        transformer=ANY,
        predictor=fields(
            "model",
            annotations=LABELS,
            labels=LABELS,
            autoScaling=ANY,
            batcher=ANY,
            canaryTrafficPercent=NUMBER,
            containerConcurrency=NUMBER,
            deploymentStrategy=ANY,
            logger=ANY,
            maxReplicas=NUMBER,
            minReplicas=NUMBER,
            model=fields(
                "modelFormat",
                modelFormat=fields("name", name=TEXT, version=TEXT),
                protocolVersion=TEXT,
                runtime=TEXT,
                runtimeVersion=TEXT,
                storage=fields(key=TEXT, parameters=LABELS, path=TEXT, schemaPath=TEXT),
                storageUri=TEXT,
                **also(MODEL_CONTAINER_FIELDS),
            ),
            resources=ANY,
            scaleMetric={"enum": ["cpu", "memory", "concurrency", "rps"]},
            scaleMetricType={"enum": ["Utilization", "Value", "AverageValue"]},
            scaleTarget=NUMBER,
            storageUris=several(fields("uri", uri=TEXT, mountPath=TEXT)),
            timeout=NUMBER,
            **also(PREDICTOR_POD_FIELDS),
        ),
    ),
)
# kserve/kserve 0.20.0, pkg/constants/constants.go.
KSERVE_ANNOTATIONS = {
    "serving.kserve.io/deploymentMode": ("Standard", "Knative", "RawDeployment", "Serverless"),
    "serving.kserve.io/autoscalerClass": ("hpa", "kpa", "external", "keda", "none"),
}

# kedacore/keda 2.20.2, config/crd/bases/keda.sh_scaledobjects.yaml, v1alpha1.
_TRIGGER = fields(
    "type metadata",
    authenticationRef=fields("name", name=TEXT, kind=TEXT),
    metadata=LABELS,
    metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    name=TEXT,
    type=TEXT,
    useCachedMetrics=FLAG,
)
SCALED_OBJECT = resource(
    "keda.sh/v1alpha1",
    "ScaledObject",
    fields(
        "scaleTargetRef triggers",
        advanced=fields(
            horizontalPodAutoscalerConfig=fields(name=TEXT, behavior=ANY),
            restoreToOriginalReplicaCount=FLAG,
            scalingModifiers=ANY,
        ),
        cooldownPeriod=NUMBER,
        fallback=fields(
            "failureThreshold replicas",
            behavior={
                "enum": [
                    "static",
                    "currentReplicas",
                    "currentReplicasIfHigher",
                    "currentReplicasIfLower",
                    "scalingModifiers",
                ]
            },
            failureThreshold=NUMBER,
            replicas=NUMBER,
        ),
        idleReplicaCount=NUMBER,
        initialCooldownPeriod=NUMBER,
        maxReplicaCount={"type": "integer", "minimum": 1},
        minReplicaCount=NUMBER,
        pollingInterval={"type": "integer", "minimum": 1},
        scaleTargetRef=fields(
            "name", apiVersion=TEXT, envSourceContainerName=TEXT, kind=TEXT, name=TEXT
        ),
        triggers=several(_TRIGGER),
    ),
)
# kedacore/keda 2.20.2, pkg/scalers/prometheus_scaler.go and cpu_memory_scaler.go.
TRIGGER_METADATA = {
    "prometheus": fields(
        "serverAddress query threshold",
        activationThreshold=TEXT,
        authModes=TEXT,
        awsRegion=TEXT,
        customHeaders=TEXT,
        identityOwner=TEXT,
        ignoreNullValues=TEXT,
        namespace=TEXT,
        query=TEXT,
        queryParameters=TEXT,
        serverAddress=TEXT,
        threshold={"type": "string", "pattern": r"^\d+(\.\d+)?$"},
        timeout=TEXT,
        unsafeSsl=TEXT,
    ),
    "cpu": fields("value", value={"type": "string", "pattern": r"^\d+$"}, containerName=TEXT),
}

# prometheus-operator/prometheus-operator 0.93.0, example/prometheus-operator-crd, v1.
_SECRET_KEY = fields("key", key=TEXT, name=TEXT, optional=FLAG)
_RELABELING = fields(
    action=TEXT,
    modulus=NUMBER,
    regex=TEXT,
    replacement=TEXT,
    separator=TEXT,
    sourceLabels=TEXTS,
    targetLabel=TEXT,
)
SERVICE_MONITOR = resource(
    "monitoring.coreos.com/v1",
    "ServiceMonitor",
    fields(
        "selector endpoints",
        endpoints=several(
            fields(
                authorization=fields(type=TEXT, credentials=_SECRET_KEY),
                interval=TEXT,
                metricRelabelings=ANY,
                path=TEXT,
                port=TEXT,
                relabelings={"type": "array", "items": _RELABELING},
                scheme=TEXT,
                scrapeTimeout=TEXT,
                tlsConfig=ANY,
            )
        ),
        jobLabel=TEXT,
        namespaceSelector=ANY,
        selector=fields(matchLabels=LABELS, matchExpressions=ANY),
        targetLabels=TEXTS,
    ),
)
PROMETHEUS_RULE = resource(
    "monitoring.coreos.com/v1",
    "PrometheusRule",
    fields(
        groups=several(
            fields(
                "name",
                interval=TEXT,
                limit=NUMBER,
                name=TEXT,
                rules=several(
                    fields(
                        "expr",
                        alert=TEXT,
                        annotations=LABELS,
                        expr=TEXT,
                        keep_firing_for=TEXT,
                        labels=LABELS,
                        record=TEXT,
                        **{"for": TEXT},
                    )
                ),
            )
        )
    ),
)

# kubernetes-sigs/gateway-api of August 2026, config/crd/standard, v1.
_BACKENDS = several(fields("name port", name=TEXT, port=NUMBER, weight=NUMBER))
_HEADER = fields("name value", name=TEXT, type=TEXT, value=TEXT)
_PARENTS = several(fields("name", name=TEXT, sectionName=TEXT))
GATEWAY = resource(
    "gateway.networking.k8s.io/v1",
    "Gateway",
    fields(
        "gatewayClassName listeners",
        gatewayClassName=TEXT,
        listeners=several(
            fields(
                "name port protocol",
                allowedRoutes=ANY,
                hostname=TEXT,
                name=TEXT,
                port=NUMBER,
                protocol=TEXT,
                tls=fields(mode=TEXT, certificateRefs=several(fields("name", name=TEXT))),
            )
        ),
    ),
)
HTTP_ROUTE = resource(
    "gateway.networking.k8s.io/v1",
    "HTTPRoute",
    fields(
        hostnames=TEXTS,
        parentRefs=_PARENTS,
        rules=several(
            fields(
                backendRefs=_BACKENDS,
                filters=ANY,
                matches=several(
                    fields(
                        headers=several(_HEADER),
                        method=TEXT,
                        path=fields(type=TEXT, value=TEXT),
                    )
                ),
                timeouts=fields(request=TEXT, backendRequest=TEXT),
            )
        ),
    ),
)
GRPC_ROUTE = resource(
    "gateway.networking.k8s.io/v1",
    "GRPCRoute",
    fields(
        hostnames=TEXTS,
        parentRefs=_PARENTS,
        rules=several(fields(backendRefs=_BACKENDS, filters=ANY, matches=ANY)),
    ),
)
