{{- /* Variables of the chart, but for those that extraEnv gives: no name may stand there twice. */ -}}
{{- define "pushforward.env" -}}
{{- $given := list -}}
{{- range .Values.extraEnv -}}
{{- $given = append $given .name -}}
{{- end -}}
{{- $kept := list -}}
{{- range include "pushforward.ownEnv" . | fromYamlArray -}}
{{- if not (has .name $given) -}}
{{- $kept = append $kept . -}}
{{- end -}}
{{- end -}}
{{- toYaml (concat $kept .Values.extraEnv) -}}
{{- end -}}

{{- define "pushforward.ownEnv" -}}
{{- if .Values.keys.allowUnauthenticated }}
- name: PUSHFORWARD_ALLOW_UNAUTHENTICATED
  value: "true"
{{- else }}
- name: PUSHFORWARD_API_KEY_FILE
  value: /run/secrets/pushforward/{{ include "pushforward.keyFile" . }}
{{- end }}
- name: PUSHFORWARD_SHUTDOWN_GRACE_SECONDS
  value: {{ .Values.drain.graceSeconds | quote }}
{{- if .Values.models.uris }}
- name: PUSHFORWARD_CACHE
  value: /var/cache/pushforward
{{- end }}
{{- if not (hasKey .Values.settings "log_format") }}
- name: PUSHFORWARD_LOG_FORMAT
  value: json
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: PUSHFORWARD_{{ upper $name }}
  value: {{ include "pushforward.text" $value | quote }}
{{- end }}
{{- end -}}

{{- /* What a pod asks for, its GPUs with it. */ -}}
{{- define "pushforward.resources" -}}
{{- $resources := deepCopy (.Values.resources | default dict) -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .Values.gpu.resource (int .Values.gpu.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
