{{/* Everything is named after the release, or fullnameOverride; a release is one operator. With
`-external-metrics` it is a Service's name, of 63 characters. */}}
{{- define "operator.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q has to begin with a letter and to have no dot: Services are named after it. Set fullnameOverride." $name) -}}
{{- end -}}
{{- $name | trunc 46 | trimSuffix "-" -}}
{{- end }}

{{- define "operator.account" -}}
{{- (.Values.serviceAccount).name | default (include "operator.name" .) -}}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: orderservice-platform
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A digest identifies the image exactly, so it takes precedence over the tag. */}}
{{- define "operator.image" -}}
{{- $repository := required "image.repository is needed" (.Values.image).repository -}}
{{- if (.Values.image).digest -}}
{{ $repository }}@{{ (.Values.image).digest }}
{{- else -}}
{{ $repository }}:{{ (.Values.image).tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "operator.externalMetrics" -}}
{{ include "operator.name" . }}-external-metrics
{{- end }}

{{/* The owner of the objects that the operator creates for itself: they are deleted with this ClusterRole. */}}
{{- define "operator.owner" -}}
{{ .Release.Namespace }}-{{ include "operator.name" . }}-registration
{{- end }}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* A cluster has one external metrics API, so an operator of one namespace does not serve it. */}}
{{- define "operator.servesMetrics" -}}
{{- if and (.Values.externalMetrics).enabled (not (include "operator.namespaces" .)) -}}
true
{{- end -}}
{{- end }}

{{/* A file of the chart. It is empty if the chart was packed or fetched without it. This fails then, because
the objects in the file would be missing. Pass (dict "root" $ "path" "files/role.yaml"). */}}
{{- define "operator.file" -}}
{{- $content := .root.Files.Get .path -}}
{{- if not (trim $content) -}}
{{- fail (printf "%s is missing or empty: this copy of the chart is not complete. Fetch the chart again." .path) -}}
{{- end -}}
{{- $content -}}
{{- end }}

{{/* Annotations of one manifest: its own, then commonAnnotations. Pass (dict "root" $ "own" MAP). */}}
{{- define "operator.annotations" -}}
{{- with merge (dict) (.own | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The namespaces that the operator manages, separated by commas; empty: all. */}}
{{- define "operator.namespaces" -}}
{{- $one := .Values.watchNamespace -}}
{{- if and $one .Values.watchNamespaces -}}
{{- fail "give watchNamespace or watchNamespaces, not both" -}}
{{- end -}}
{{- join "," (.Values.watchNamespaces | default (compact (list $one)) | uniq) -}}
{{- end }}
