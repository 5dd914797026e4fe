{{/* The pod, of the Deployment and, with a schedule, of the CronJob. */}}
{{- define "stream.podTemplate" -}}
metadata:
  labels:
    {{- include "stream.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- if .Values.pipeline.file }}
    checksum/pipeline: {{ toJson .Values.pipeline | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if .Values.schedule.cron }}
  restartPolicy: Never
  {{- end }}
  serviceAccountName: {{ include "stream.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ .Values.user }}
    runAsGroup: {{ .Values.user }}
    fsGroup: {{ .Values.user }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- if .Values.preflight.enabled }}
  initContainers:
    - name: preflight
      image: {{ include "stream.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: {{ append .Values.preflight.arguments "/etc/stream/pipeline.yaml" | toJson }}
      env:
        # The service account of which the token must be.
        - name: STREAM_SERVICE_ACCOUNT
          value: {{ printf "%s:%s" .Release.Namespace (include "stream.serviceAccount" .) | quote }}
        {{- include "stream.environment" . | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      {{- include "stream.confinement" . | nindent 6 }}
      {{- include "stream.mounts" . | nindent 6 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "stream.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      terminationMessagePolicy: FallbackToLogsOnError
      args:
        - run
        - /etc/stream/pipeline.yaml
        {{- if .Values.schedule.cron }}
        - --once
        - --result=-
        {{- end }}
        - --drain={{ .Values.drainSeconds }}
        - --threads=$(STREAM_THREADS)
        - --metrics-host={{ .Values.metrics.host }}
        - --metrics-port={{ .Values.metrics.port }}
        - --log-level={{ .Values.logLevel }}
      env:
        {{- include "stream.environment" . | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: metrics, containerPort: {{ .Values.metrics.port }}, protocol: TCP}
      # None of the three calls AWS: an outage there must not restart the fleet.
      startupProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      {{- if not .Values.schedule.cron }}
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- end }}
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      {{- include "stream.confinement" . | nindent 6 }}
      {{- include "stream.mounts" . | nindent 6 }}
  {{- if not .Values.schedule.cron }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels:
          {{- include "stream.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes:
    - name: pipeline
      configMap: {name: {{ include "stream.configMap" . }}}
    - name: tmp
      emptyDir: {sizeLimit: {{ .Values.tmpSizeLimit }}}
    {{- with .Values.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
