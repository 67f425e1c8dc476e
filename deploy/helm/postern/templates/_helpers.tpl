{{- define "postern.name" -}}
{{- if contains "postern" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-postern" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "postern.selector" -}}
app.kubernetes.io/name: postern
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "postern.labels" -}}
{{ include "postern.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* What could only fail later, in a pod that does not start. */}}
{{- define "postern.check" -}}
{{- if not (and .Values.image.repository .Values.image.tag) }}
{{- fail "image.repository and image.tag are empty: push the image that `make image` builds, and name it" }}
{{- end }}
{{- if not .Values.config }}
{{- fail "config is empty: write relay.toml there, or give it with --set-file config=relay.toml" }}
{{- end }}
{{- if not (regexMatch "(?m)^[ \\t]*data_dir *= *[\"']/var/lib/postern/data/?[\"']" .Values.config) }}
{{- fail "config: write data_dir = \"/var/lib/postern/data\": what is outside the volume is lost, and the volume itself is open to a group, which Postern refuses" }}
{{- end }}
{{- if not (regexMatch "(?m)^[ \\t]*(admin\\.)?address *= *[\"'](0\\.0\\.0\\.0|\\[::\\])?:8587[\"']" .Values.config) }}
{{- fail "config: write address = \":8587\" in [admin], so that probes reach it" }}
{{- end }}
{{- if not (regexMatch "(?m)^[ \\t]*(admin\\.)?tls *= *true" .Values.config) }}
{{- fail "config: write tls = true in [admin]: probes ask by HTTPS, and without it there is no console off the machine itself" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not (regexMatch "(?m)^[ \\t]*(store\\.)?url *= *[\"']postgres(ql)?://" .Values.config)) }}
{{- fail "replicas: several nodes need [store] url of PostgreSQL in config; with SQLite there is one" }}
{{- end }}
{{- end -}}
