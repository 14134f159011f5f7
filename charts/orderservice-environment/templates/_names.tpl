{{- define "environment.name" -}}
{{- $name := .Values.fullnameOverride | default .Values.nameOverride | default .Release.Name -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "the name %q is longer than 40 characters: the children of an OrderService add suffixes to it. Set nameOverride." $name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q has to begin with a letter and to have no dot: Services are named after it. Set nameOverride." $name) -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{/* Labels of one part: pass (dict "root" $ "part" "postgresql"). */}}
{{- define "environment.selector" -}}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/instance: {{ include "environment.name" .root | quote }}
{{- end }}

{{- define "environment.labels" -}}
{{ include "environment.selector" . }}
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/part-of: orderservice-platform
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "environment.image" -}}
{{- $repository := required "image.repository is needed" (.Values.image).repository -}}
{{- if (.Values.image).digest -}}
{{ $repository }}@{{ (.Values.image).digest }}
{{- else -}}
{{ $repository }}:{{ (.Values.image).tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "environment.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Pass the user id of the image. */}}
{{- define "environment.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The entries of a part's Secret that its pods read. The pods are replaced when one changes. Other pods read the
other entries. Pass (dict "root" $ "part" "database"). */}}
{{- define "environment.checksum" -}}
{{- $entries := get (include "environment.secrets" .root | fromYaml) .part -}}
{{- $read := pick $entries "superuserPassword" "replicationPassword" "password" "cookie" "valkey.conf" "users.acl" "secret" -}}
checksum/secret: {{ $read | toJson | sha256sum }}
{{- end }}

{{/* The processes that have a role in PostgreSQL, separated by commas. */}}
{{- define "environment.processes" -}}
{{ join "," (.Files.Get "files/database-roles.yaml" | fromYaml).processes }}
{{- end }}

{{- define "environment.pullSecrets" -}}
{{- with (((.Values.spec).podTemplate).imagePullSecrets) }}
imagePullSecrets:
  {{- range . }}
  - name: {{ .name | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "environment.pullPolicy" -}}
{{ (((.Values.spec).podTemplate).imagePullPolicy) | default "IfNotPresent" }}
{{- end }}

{{/* The provider that runs a server; empty if the server is disabled. Pass (dict "root" $ "part" "rabbitmq"). */}}
{{- define "environment.provider" -}}
{{- $server := index .root.Values .part | default dict -}}
{{- if $server.enabled -}}
{{- $server.provider | default "Pods" -}}
{{- end -}}
{{- end }}

{{/* Names of the servers and simulators that are pods of this chart, separated by commas. */}}
{{- define "environment.brings" -}}
{{- $parts := list -}}
{{- range list "postgresql" "rabbitmq" "valkey" -}}
{{- if eq (include "environment.provider" (dict "root" $ "part" .)) "Pods" -}}
{{- $parts = append $parts . -}}
{{- end -}}
{{- end -}}
{{- if (.Values.simulators).enabled -}}
{{- $parts = concat $parts (list "inventory" "payment" "webhooks") -}}
{{- end -}}
{{- join "," $parts -}}
{{- end }}

{{/* The Secret with the certificate of the chart's own servers and simulators; empty without TLS. */}}
{{- define "environment.tls" -}}
{{- with (.Values.tls).secretName }}{{ . }}{{ end -}}
{{- end }}

{{/* Host of one part; with TLS, the name that a certificate for `*.<namespace>.svc` matches. Pass (dict "root" $ "part" "valkey"). */}}
{{- define "environment.host" -}}
{{ include "environment.name" .root }}-{{ .part }}
{{- if include "environment.tls" .root }}.{{ .root.Release.Namespace }}.svc{{ end -}}
{{- end }}

{{- define "environment.tlsMount" -}}
- {name: tls, mountPath: /etc/tls, readOnly: true}
{{- end }}

{{- define "environment.tlsVolume" -}}
- name: tls
  secret: {secretName: {{ include "environment.tls" . | quote }}, defaultMode: 0400}
{{- end }}

{{/* Address of the api for other pods. The only port of a gateway with a certificate speaks TLS. */}}
{{- define "environment.api" -}}
{{- $host := print (include "environment.name" .) "-api" -}}
{{- if include "environment.apiTls" . -}}
https://{{ $host }}.{{ .Release.Namespace }}.svc
{{- else -}}
http://{{ $host }}
{{- end -}}
{{- end }}

{{/* The Secret with the certificate of the api's gateway, if it has one. */}}
{{- define "environment.apiTls" -}}
{{- with ((((.Values.spec).api).gateway).tlsSecretRef).name }}{{ . }}{{ end -}}
{{- end }}

{{- define "environment.password" -}}
{{- required "developmentPassword is needed while the chart brings servers or simulators (values-dev.yaml has one)" .Values.developmentPassword -}}
{{- end }}

{{/* A password, encoded for a URL. urlquery encodes a space as a plus, which is valid only in a query. */}}
{{- define "environment.escaped" -}}
{{ urlquery . | replace "+" "%20" }}
{{- end }}

{{/* The key that signs webhooks: 32 bytes, base64, as the receiver expects it. */}}
{{- define "environment.webhookKey" -}}
whsec_{{ include "environment.password" . | sha256sum | trunc 32 | b64enc }}
{{- end }}

{{/* Annotations of one manifest: its own, then commonAnnotations. Pass (dict "root" $ "own" MAP). */}}
{{- define "environment.annotations" -}}
{{- with merge (dict) (.own | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
