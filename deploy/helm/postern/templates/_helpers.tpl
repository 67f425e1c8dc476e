{{/* Names of Services are labels of DNS, which have no dot and begin with a letter; releases may be called otherwise. */}}
{{- define "postern.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- if not (contains "postern" $name) }}{{ $name = printf "%s-postern" $name }}{{ end -}}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "postern-%s" .Release.Name | replace "." "-" }}{{ end -}}
{{- $name | trunc 40 | trimAll "-" -}}
{{- end -}}

{{- define "postern.selector" -}}
app.kubernetes.io/name: postern
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* A tag may be longer than a label, and begin or end as none does. */}}
{{- define "postern.labels" -}}
{{ include "postern.selector" . }}
{{- with .Values.image.tag | trunc 63 | trimAll "-_." }}
app.kubernetes.io/version: {{ . | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "postern.image" -}}
{{ .repository }}{{ with .tag }}:{{ . }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The ports of addresses, as JSON, but for those that only the pod itself reaches. */}}
{{- define "postern.portsOf" -}}
{{- $ports := list -}}
{{- range . }}
{{- if not (regexMatch "^(127\\.|\\[::1\\]|localhost:|$)" .) }}{{ $ports = append $ports (regexFind "[0-9]+$" .) }}{{ end }}
{{- end }}
{{- $ports | toJson -}}
{{- end -}}

{{/* The ports of the listeners for mail, and those that relay.toml may have beside. */}}
{{- define "postern.mailPorts" -}}
{{- $addresses := list -}}
{{- range .listener | default (list (dict) (dict "tls" "implicit")) }}
{{- $addresses = append $addresses (.address | default (eq (.tls | default "") "implicit" | ternary ":465" ":587")) }}
{{- end }}
{{- include "postern.portsOf" $addresses -}}
{{- end -}}

{{- define "postern.otherPorts" -}}
{{- $addresses := list (dig "autoconfig" "address" "" .) (dig "autoconfig" "http_address" "" .) (dig "self_service" "address" "" .) -}}
{{- with dig "tls" "acme" dict . }}
{{- $addresses = append $addresses (.http_address | default ":80") }}
{{- $addresses = append $addresses (.tls_address | default ":443") }}
{{- end }}
{{- include "postern.portsOf" $addresses -}}
{{- end -}}

{{/* The keys of relay.toml whose value is a secret itself, not the name of one. */}}
{{- define "postern.literals" -}}
{{- range $key, $value := .table }}
{{- $at := printf "%s%s" $.at $key }}
{{- $secret := has $key (list "password" "client_secret" "seal_key" "bind_password" "token" "secret" "eab_key" "refresh_token") }}
{{- $secret = or $secret (eq $at "alert.url") (and (eq $key "proxy") (contains "@" (toString $value))) }}
{{- if kindIs "map" $value }}
{{- include "postern.literals" (dict "table" $value "at" (printf "%s." $at)) }}
{{- else if kindIs "slice" $value }}
{{- range $value }}{{ if kindIs "map" . }}{{ include "postern.literals" (dict "table" . "at" (printf "%s." $at)) }}{{ end }}{{ end }}
{{- else if and $secret (kindIs "string" $value) $value (not (regexMatch "^(file|env):" $value)) }} {{ $at }}{{ end }}
{{- end }}
{{- end -}}

{{/* What could only fail later, in a pod that does not start. */}}
{{- define "postern.check" -}}
{{- if not (and .Values.image.repository (or .Values.image.tag .Values.image.digest)) }}
{{- fail "image.repository and image.tag are empty: push the image that `make image` builds, and name it" }}
{{- end }}
{{- if ge (int .Values.preStopSeconds) (int .Values.terminationGracePeriodSeconds) }}
{{- fail "preStopSeconds leaves no time to end transfers: terminationGracePeriodSeconds has to be longer, both begin together" }}
{{- end }}
{{- if not .Values.config }}
{{- fail "config is empty: write relay.toml there, or give it with --set-file config=relay.toml" }}
{{- end }}
{{- $relay := fromToml .Values.config }}
{{- with $relay.Error }}
{{- fail (printf "config: %s" .) }}
{{- end }}
{{- include "postern.checkRelay" (dict "relay" $relay "values" .Values) }}
{{- end -}}

{{- define "postern.checkRelay" -}}
{{- $relay := .relay }}
{{- if ne ($relay.data_dir | default "" | trimSuffix "/") "/var/lib/postern/data" }}
{{- fail "config: write data_dir = \"/var/lib/postern/data\": what is outside the volume is lost, and the volume itself is open to a group, which Postern refuses" }}
{{- end }}
{{- if not (has (dig "admin" "address" "" $relay) (list ":8587" "0.0.0.0:8587" "[::]:8587")) }}
{{- fail "config: write address = \":8587\" in [admin], so that probes reach it" }}
{{- end }}
{{- if not (dig "admin" "tls" false $relay) }}
{{- fail "config: write tls = true in [admin]: probes ask by HTTPS, and without it there is no console off the machine itself" }}
{{- end }}
{{- with include "postern.literals" (dict "table" $relay "at" "") }}
{{- fail (printf "config: everybody who may see a ConfigMap or the release reads%s: write \"file:/run/secrets/postern/NAME\", with NAME a key of the Secret that `secret` names" .) }}
{{- end }}
{{- if gt (int .values.replicas) 1 }}
{{- if not (regexMatch "^postgres(ql)?://" (dig "store" "url" "" $relay)) }}
{{- fail "replicas: several nodes need [store] url of PostgreSQL in config; with SQLite there is one" }}
{{- end }}
{{- if not (dig "store" "seal_key" "" $relay) }}
{{- fail "replicas: several nodes need [store] seal_key in config, the same for all" }}
{{- end }}
{{- end }}
{{- include "postern.checkPorts" . }}
{{- end -}}

{{- define "postern.checkPorts" -}}
{{- $mail := include "postern.mailPorts" .relay | fromJsonArray }}
{{- $all := concat $mail (include "postern.otherPorts" .relay | fromJsonArray) }}
{{- range .values.ports }}
{{- if not (has (toString .port) $all) }}
{{- fail (printf "ports: nothing listens on %v in config, which has %s" .port (join ", " $all)) }}
{{- end }}
{{- $mail = without $mail (toString .port) }}
{{- end }}
{{- with $mail }}
{{- fail (printf "ports: nobody reaches the listeners on %s in config: name them, or give them an address such as 127.0.0.1:2525" (join ", " .)) }}
{{- end }}
{{- end -}}
