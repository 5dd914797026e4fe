{{- define "stream.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "stream.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "stream.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "stream.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stream.selector" -}}
app.kubernetes.io/name: {{ include "stream.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "stream.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{ include "stream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "stream.metadata" -}}
name: {{ include "stream.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "stream.labels" . | nindent 2 }}
{{- end -}}

{{- define "stream.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stream.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the service account that exists, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "stream.image" -}}
{{- $repository := required "image.repository: name the image, for instance 111122223333.dkr.ecr.eu-west-1.amazonaws.com/stream" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "stream.configMap" -}}
{{- default (printf "%s-pipeline" (include "stream.fullname" .)) .Values.pipeline.existingConfigMap -}}
{{- end -}}

{{/* `local` or `native`: what decides which pod reads which shard, from the pipeline file. */}}
{{- define "stream.coordination" -}}
{{- if .Values.pipeline.file -}}
{{- $read := fromYaml .Values.pipeline.file -}}
{{- $said := $read.coordination | default "local" -}}
{{- if kindIs "map" $said }}{{ keys $said | first }}{{ else }}{{ $said }}{{ end -}}
{{- else -}}
{{- .Values.pipeline.coordination -}}
{{- end -}}
{{- end -}}

{{/* Selects this release's series; every query of the chart uses it. */}}
{{- define "stream.series" -}}
{{- printf "namespace=%q,pod=~%q" .Release.Namespace (printf "%s-[a-z0-9]+-[a-z0-9]+" (include "stream.fullname" .)) -}}
{{- end -}}

{{- define "stream.environment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.hostIP}}
{{- /* Without these, every pool of threads is as large as the node has cores. */}}
{{- range list "STREAM_THREADS" "OMP_NUM_THREADS" "TOKIO_WORKER_THREADS" }}
- name: {{ . }}
  valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: "1"}}
{{- end }}
{{- /* The node's role must never stand in for the pod's. */}}
- name: AWS_EC2_METADATA_DISABLED
  value: "true"
- name: AWS_STS_REGIONAL_ENDPOINTS
  value: regional
{{- with .Values.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.collector.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}}
{{- end }}
{{- end -}}

{{/* The security context of both containers: only what a worker needs. */}}
{{- define "stream.confinement" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  runAsNonRoot: true
  runAsUser: {{ .Values.user }}
  runAsGroup: {{ .Values.user }}
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "stream.mounts" -}}
volumeMounts:
  - {name: pipeline, mountPath: /etc/stream, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
