{{- /* Refuse what the schema cannot: values that contradict each other. */ -}}
{{- define "pushforward.check" -}}
{{- include "pushforward.checkKeys" . -}}
{{- include "pushforward.checkService" . -}}
{{- include "pushforward.checkScaling" . -}}
{{- include "pushforward.checkPod" . -}}
{{- end -}}

{{- define "pushforward.checkKeys" -}}
{{- $file := include "pushforward.keyFile" . -}}
{{- $entry := include "pushforward.monitorEntry" . -}}
{{- with .Values.keys -}}
{{- if and .allowUnauthenticated (or .existingSecret .values .toml .monitor) -}}
{{- fail "keys.allowUnauthenticated is for a service without keys: give keys, or allowUnauthenticated" -}}
{{- end -}}
{{- if and .existingSecret (or .values .toml .monitor) -}}
{{- fail "keys.existingSecret names a Secret that is there: leave out keys.values, keys.toml and keys.monitor, or it" -}}
{{- end -}}
{{- if and .values .toml -}}
{{- fail "keys.values and keys.toml are two forms of one file: give one of them" -}}
{{- end -}}
{{- if and .toml (not .monitor) -}}
{{- fail "keys.monitor: expected one key of keys.toml in plain, which Prometheus and `helm test` show" -}}
{{- end -}}
{{- if and .toml (not (or (contains .monitor .toml) (contains (sha256sum .monitor) (lower .toml)))) -}}
{{- fail "keys.monitor: expected one key of keys.toml, which has neither it nor its SHA-256" -}}
{{- end -}}
{{- if and .values .monitor (not (has .monitor .values)) -}}
{{- fail "keys.monitor: expected one of keys.values, the service knows no others" -}}
{{- end -}}
{{- if not (or .allowUnauthenticated .existingSecret) -}}
{{- if eq $file $entry -}}
{{- fail (printf "keys.file and keys.monitorEntry: both are %s, expected two entries of the Secret" $file) -}}
{{- end -}}
{{- if ne (hasSuffix ".toml" $file) (not (empty .toml)) -}}
{{- fail (printf "keys.file: %s, expected a name that ends in .toml for keys.toml, and for plain keys another" $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushforward.checkService" -}}
{{- with .Values.grpc -}}
{{- if and .enabled (eq (int .port) 8000) -}}
{{- fail "grpc.port: 8000 is where the pods listen for HTTP, choose another" -}}
{{- end -}}
{{- if and .enabled (eq (int .port) (int $.Values.service.port)) -}}
{{- fail (printf "grpc.port: %d is service.port too, choose another" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.service -}}
{{- if and .headless (ne .type "ClusterIP") -}}
{{- fail (printf "service.headless: a service of type %s has an address, expected type ClusterIP" .type) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushforward.checkScaling" -}}
{{- with .Values.autoscaling -}}
{{- if ne .kind "none" -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas: %d is more than autoscaling.maxReplicas, %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- $resources := $.Values.resources | default dict -}}
{{- if not (or ($resources.requests).cpu ($resources.limits).cpu) -}}
{{- fail (printf "autoscaling.kind: %s counts percent of resources.requests.cpu, which is not given" .kind) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .kind "keda") (gt (int .keda.fallbackReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling.keda.fallbackReplicas: %d is more than autoscaling.maxReplicas, %d" (int .keda.fallbackReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushforward.checkPod" -}}
{{- with .Values.models -}}
{{- if or (and .existingClaim (or .image.reference .volume)) (and .image.reference .volume) -}}
{{- fail "models.existingClaim, models.image.reference and models.volume are all mounted at /models: give one of them" -}}
{{- end -}}
{{- end -}}
{{- $selector := include "pushforward.selectorLabels" . | fromYaml -}}
{{- range $name, $_ := .Values.podLabels -}}
{{- if hasKey $selector $name -}}
{{- fail (printf "podLabels: %s is what the Service finds its pods by, choose another" $name) -}}
{{- end -}}
{{- end -}}
{{- $volumes := list "tmp" -}}
{{- if not .Values.keys.allowUnauthenticated -}}{{- $volumes = append $volumes "keys" -}}{{- end -}}
{{- if include "pushforward.hasVolume" . -}}{{- $volumes = append $volumes "models" -}}{{- end -}}
{{- if .Values.models.uris -}}{{- $volumes = append $volumes "cache" -}}{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name $volumes -}}
{{- fail (printf "extraVolumes: there is a volume %s already, choose another name" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- end -}}
