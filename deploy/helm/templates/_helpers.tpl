{{- define "pushforward.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pushforward.selectorLabels" -}}
app.kubernetes.io/name: pushforward
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pushforward.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "pushforward.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Those, and others beside or in the place of them: of the root and the others as a list. */ -}}
{{- define "pushforward.labelsWith" -}}
{{- toYaml (merge (dict) (index . 1) (include "pushforward.labels" (index . 0) | fromYaml)) -}}
{{- end -}}

{{- define "pushforward.image" -}}
{{- $tag := .Values.image.tag | default (gt (int .Values.gpu.count) 0 | ternary "gpu" "cpu") -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}

{{- define "pushforward.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "pushforward.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "pushforward.secret" -}}
{{- .Values.keys.existingSecret | default (include "pushforward.fullname" .) -}}
{{- end -}}

{{- define "pushforward.keyFile" -}}
{{- .Values.keys.file | default (.Values.keys.toml | empty | ternary "keys" "keys.toml") -}}
{{- end -}}

{{- /* An expression over the series that have these labels: of both as a list. */ -}}
{{- define "pushforward.ownSeries" -}}
{{- $matchers := list -}}
{{- range $name, $value := index . 1 -}}
{{- $matchers = append $matchers (printf "%s=%q" $name $value) -}}
{{- end -}}
{{- $bare := regexReplaceAll "\\b(pushforward_\\w+)([^\\w{]|$)" (index . 0) "${1}{}${2}" -}}
{{- $all := regexReplaceAll "\\b(pushforward_\\w+|process_start_time_seconds|up)\\{" $bare (printf "${1}{%s, " (join ", " $matchers)) -}}
{{- $all | replace ", }" "}" -}}
{{- end -}}

{{- /* Entry with the one key of Prometheus and `helm test`. */ -}}
{{- define "pushforward.monitorEntry" -}}
{{- if .Values.keys.monitorEntry -}}
{{- .Values.keys.monitorEntry -}}
{{- else if and .Values.keys.existingSecret (not (hasSuffix ".toml" .Values.keys.file)) -}}
{{- include "pushforward.keyFile" . -}}
{{- else -}}
monitor
{{- end -}}
{{- end -}}

{{- /* "true" where models lie in a volume. */ -}}
{{- define "pushforward.hasVolume" -}}
{{- with .Values.models }}{{ if or .existingClaim .image.reference .volume }}true{{ end }}{{ end -}}
{{- end -}}

{{- /* A setting as its variable has it: lists joined, whole numbers without an exponent. */ -}}
{{- define "pushforward.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
