{{- /* Refuse what the schema cannot: values that contradict each other. */ -}}
{{- define "pushforward.check" -}}
{{- with .Values.keys -}}
{{- if and .allowUnauthenticated (or .existingSecret .values .toml) -}}
{{- fail "keys.allowUnauthenticated is for a service without keys: give keys, or allowUnauthenticated" -}}
{{- end -}}
{{- if and .existingSecret (or .values .toml) -}}
{{- fail "keys.existingSecret names a Secret that is there: leave out keys.values and keys.toml, or it" -}}
{{- end -}}
{{- if and .values .toml -}}
{{- fail "keys.values and keys.toml are two forms of one file: give one of them" -}}
{{- end -}}
{{- if and .toml (not .monitor) -}}
{{- fail "keys.monitor: expected one key of keys.toml in plain, which Prometheus and `helm test` show" -}}
{{- end -}}
{{- end -}}
{{- with .Values.models -}}
{{- if and .existingClaim (or .image.reference .volume) -}}
{{- fail "models.existingClaim, models.image.reference and models.volume are all mounted at /models: give one of them" -}}
{{- end -}}
{{- if and .image.reference .volume -}}
{{- fail "models.existingClaim, models.image.reference and models.volume are all mounted at /models: give one of them" -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.grpc.port) 8000 -}}
{{- fail "grpc.port: 8000 is where the pods listen for HTTP, choose another" -}}
{{- end -}}
{{- end -}}

{{- /* What a pod asks for, its GPUs with it. */ -}}
{{- define "pushforward.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .Values.gpu.resource (int .Values.gpu.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
