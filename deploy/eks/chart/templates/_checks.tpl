{{/* Checks that a schema cannot express. Each message names the value, what it is, and what is allowed. */}}
{{- define "stream.checks" -}}
{{- $values := .Values -}}
{{- $pipeline := $values.pipeline -}}
{{- if and $pipeline.file $pipeline.existingConfigMap -}}
{{- fail "pipeline.file and pipeline.existingConfigMap: give one of them" -}}
{{- end -}}
{{- if not (or $pipeline.file $pipeline.existingConfigMap) -}}
{{- fail "pipeline.file: give the pipeline, for instance with --set-file pipeline.file=pipeline.yaml, or name pipeline.existingConfigMap" -}}
{{- end -}}
{{- if $pipeline.file -}}
  {{- if regexMatch "^[^\\s:]+\\.ya?ml\\s*$" $pipeline.file -}}
    {{- fail (printf "pipeline.file is the name of a file, %q, and has to be its text: write --set-file pipeline.file=%s in place of --set" (trim $pipeline.file) (trim $pipeline.file)) -}}
  {{- end -}}
  {{- $read := fromYaml $pipeline.file -}}
  {{- if hasKey $read "Error" -}}
    {{- fail (printf "pipeline.file is not YAML: %s" $read.Error) -}}
  {{- end -}}
  {{- range list "application" "source" "sinks" "state" -}}
    {{- if not (hasKey $read .) -}}
      {{- fail (printf "pipeline.file has no `%s`; `stream check` lists everything that is wrong" .) -}}
    {{- end -}}
  {{- end -}}
  {{- if and (hasPrefix "file:" (toString $read.state)) (not $values.volumes) -}}
    {{- fail (printf "pipeline.file keeps its state in %s, which goes with the pod; use s3://bucket/prefix/, or mount a volume there" $read.state) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $pipeline.files -}}
  {{- if eq $name "pipeline.yaml" -}}{{- fail "pipeline.files: pipeline.yaml is the name of pipeline.file; choose another" -}}{{- end -}}
{{- end -}}
{{- $coordination := include "stream.coordination" . -}}
{{- if eq $coordination "kcl" -}}
{{- fail "the pipeline says `coordination: kcl`, under which the KCL's daemon runs it (`stream kcl daemon`), and this chart runs `stream run`; say `coordination: native`, which shares a KCL fleet's lease table too" -}}
{{- end -}}
{{- if has $values.metrics.host (list "localhost" "127.0.0.1" "::1") -}}
{{- fail (printf "metrics.host is %s, but the probes of the node come from outside of the pod and would get no answer; use 0.0.0.0, or :: in an IPv6 cluster" $values.metrics.host) -}}
{{- end -}}
{{- $many := or $values.autoscaling.enabled (gt (int $values.replicas) 1) -}}
{{- if and $many (eq $coordination "local") -}}
{{- fail (printf "replicas is %d and autoscaling.enabled is %t, but the pipeline says `coordination: local`, with which every pod would do all the work; say `coordination: native` in the pipeline file, or run one replica" (int $values.replicas) $values.autoscaling.enabled) -}}
{{- end -}}
{{- with $values.schedule -}}
  {{- if .cron -}}
    {{- if $values.autoscaling.enabled -}}
      {{- fail (printf "schedule.cron is %q and autoscaling.enabled true: a scheduled run is one pod, which ends; remove one of the two" .cron) -}}
    {{- end -}}
    {{- if gt (int $values.replicas) 1 -}}
      {{- fail (printf "schedule.cron is %q and replicas %d: a scheduled run is one pod; set replicas to 1, or to 0 to suspend the schedule" .cron (int $values.replicas)) -}}
    {{- end -}}
    {{- if $values.rules.enabled -}}
      {{- fail (printf "schedule.cron is %q and rules.enabled true: the alerts watch workers that are always there, and would fire between two runs; leave rules.enabled out and watch the Jobs" .cron) -}}
    {{- end -}}
    {{- if and .deadlineSeconds (le (int .deadlineSeconds) (int $values.drainSeconds)) -}}
      {{- fail (printf "schedule.deadlineSeconds is %d, but the drain at its end may take drainSeconds, %d, by itself: allow more, or 0 for no deadline" (int .deadlineSeconds) (int $values.drainSeconds)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $least := int (add $values.drainSeconds 15) -}}
{{- if lt (int $values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a drain may take drainSeconds, %d, and needs 15 more to send what is left and end: allow at least %d" (int $values.terminationGracePeriodSeconds) (int $values.drainSeconds) $least) -}}
{{- end -}}
{{- if and (eq $values.identity.kind "irsa") (not $values.identity.roleArn) $values.serviceAccount.create -}}
{{- fail "identity.roleArn: with identity.kind irsa the service account has to name its role" -}}
{{- end -}}
{{- if and (eq $values.identity.kind "pod-identity") $values.identity.roleArn -}}
{{- fail "identity.roleArn: with identity.kind pod-identity the association names the role, not the service account; leave it empty, or set identity.kind to irsa" -}}
{{- end -}}
{{- with $values.autoscaling -}}
  {{- if .enabled -}}
    {{- if not .prometheus -}}{{- fail "autoscaling.prometheus: give the address of Prometheus, for instance http://prometheus-operated.monitoring:9090" -}}{{- end -}}
    {{- if gt (int .minReplicas) (int .maxReplicas) -}}
      {{- fail (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas %d: the first may not exceed the second" (int .minReplicas) (int .maxReplicas)) -}}
    {{- end -}}
    {{- if or (lt (int .fallbackReplicas) (int .minReplicas)) (gt (int .fallbackReplicas) (int .maxReplicas)) -}}
      {{- fail (printf "autoscaling.fallbackReplicas is %d: choose from autoscaling.minReplicas, %d, to autoscaling.maxReplicas, %d" (int .fallbackReplicas) (int .minReplicas) (int .maxReplicas)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range list "STREAM_THREADS" "POLARS_MAX_THREADS" "OMP_NUM_THREADS" "TOKIO_WORKER_THREADS" "POD_NAME" "HOST_IP" "AWS_EC2_METADATA_DISABLED" "AWS_STS_REGIONAL_ENDPOINTS" -}}
  {{- if or (hasKey $values.env .) (hasKey $values.secretEnv .) -}}
    {{- fail (printf "env.%s: the chart sets this variable itself, or what it sets decides it; threads follow resources.requests.cpu" .) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $values.secretEnv -}}
  {{- if hasKey $values.env $name -}}{{- fail (printf "env.%s and secretEnv.%s: give one of them" $name $name) -}}{{- end -}}
{{- end -}}
{{- end -}}
