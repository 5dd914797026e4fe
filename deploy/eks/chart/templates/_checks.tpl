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
{{- fail (printf "metrics.host is %s, but the probes of the node come from outside of the pod and would find nobody; use 0.0.0.0, or :: in an IPv6 cluster" $values.metrics.host) -}}
{{- end -}}
{{- $many := or $values.autoscaling.enabled (gt (int $values.replicas) 1) -}}
{{- if and $many (eq $coordination "local") -}}
{{- fail (printf "replicas is %d and autoscaling.enabled is %t, but the pipeline says `coordination: local`, with which every pod would do all the work; say `coordination: native` in the pipeline file, or run one replica" (int $values.replicas) $values.autoscaling.enabled) -}}
{{- end -}}
{{- with $values.schedule -}}
  {{- if .cron -}}
    {{- if $values.autoscaling.enabled -}}
      {{- fail (printf "schedule.cron is %q and autoscaling.enabled true: a run by the clock is one pod, which ends; leave one of them out" .cron) -}}
    {{- end -}}
    {{- if gt (int $values.replicas) 1 -}}
      {{- fail (printf "schedule.cron is %q and replicas %d: a run by the clock is one pod; set replicas to 1, or to 0 to suspend the schedule" .cron (int $values.replicas)) -}}
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
    {{- fail (printf "env.%s: the chart sets this variable itself" .) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $values.secretEnv -}}
  {{- if hasKey $values.env $name -}}{{- fail (printf "env.%s and secretEnv.%s: give one of them" $name $name) -}}{{- end -}}
{{- end -}}
{{- range $name, $of := dict "AWS_REGION" (list "region" $values.region) "OTEL_EXPORTER_OTLP_ENDPOINT" (list "collector.endpoint" $values.collector.endpoint) -}}
  {{- if and (index $of 1) (or (hasKey $values.env $name) (hasKey $values.secretEnv $name)) -}}
    {{- fail (printf "env.%s and %s set the same variable: give one of them" $name (first $of)) -}}
  {{- end -}}
{{- end -}}
{{- include "stream.checks.resources" . -}}
{{- include "stream.checks.names" . -}}
{{- include "stream.checks.volumes" . -}}
{{- end -}}

{{/* What Kubernetes itself would refuse, or what would end the pod as soon as it has work. */}}
{{- define "stream.checks.resources" -}}
{{- $values := .Values -}}
{{- with $values.resources -}}
  {{- if gt (include "stream.bytes" .requests.memory | int64) (include "stream.bytes" .limits.memory | int64) -}}
    {{- fail (printf "resources.requests.memory is %s and resources.limits.memory %s: the first may not exceed the second; set both alike" .requests.memory .limits.memory) -}}
  {{- end -}}
  {{- if .limits.cpu -}}
    {{- if gt (include "stream.millicores" .requests.cpu | int64) (include "stream.millicores" .limits.cpu | int64) -}}
      {{- fail (printf "resources.requests.cpu is %v and resources.limits.cpu %v: the first may not exceed the second; better set no CPU limit" .requests.cpu .limits.cpu) -}}
    {{- end -}}
  {{- end -}}
  {{- if $values.pipeline.file -}}
    {{- $memory := (fromYaml $values.pipeline.file).memory -}}
    {{- $budget := ternary (toString (get (default (dict) $memory) "budget")) "" (kindIs "map" $memory) -}}
    {{- if regexMatch "^[0-9]+(\\.[0-9]+)?([kKMGT]i?)?B?$" $budget -}}
      {{- if ge (include "stream.bytes" (trimSuffix "B" $budget) | int64) (include "stream.bytes" .limits.memory | int64) -}}
        {{- fail (printf "the pipeline's memory.budget is %s and resources.limits.memory %s: the pod would be killed before the budget is used; allow what `stream explain` prints" $budget .limits.memory) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $size := 0 -}}
{{- range append (values $values.pipeline.files) $values.pipeline.file -}}{{- $size = add $size (len .) -}}{{- end -}}
{{- if gt $size 1000000 -}}
{{- fail (printf "pipeline.file and pipeline.files are %d bytes long, and a ConfigMap holds a million: read large tables from S3, or mount them with volumes" $size) -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq (int $values.replicas) 0) -}}
{{- fail "replicas is 0 and autoscaling.enabled true: KEDA would start autoscaling.minReplicas pods all the same; to stand still, set autoscaling.enabled to false" -}}
{{- end -}}
{{- end -}}

{{/* What would be there twice, or be ignored. */}}
{{- define "stream.checks.names" -}}
{{- $values := .Values -}}
{{- if regexMatch "(@|:[^/]*$)" $values.image.repository -}}
{{- fail (printf "image.repository is %q, with a tag or a digest: give it without, and set image.tag or image.digest" $values.image.repository) -}}
{{- end -}}
{{- range $place, $labels := dict "podLabels" $values.podLabels "podMonitor.labels" $values.podMonitor.labels "rules.labels" $values.rules.labels -}}
  {{- range $name, $_ := $labels -}}
    {{- if or (hasPrefix "app.kubernetes.io/" $name) (eq $name "helm.sh/chart") -}}
      {{- fail (printf "%s: the chart sets the label %s itself" $place $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if hasKey $values.podAnnotations "checksum/pipeline" -}}{{- fail "podAnnotations: the chart sets the annotation checksum/pipeline itself" -}}{{- end -}}
{{- range $name, $_ := $values.serviceAccount.annotations -}}
  {{- if and (hasPrefix "eks.amazonaws.com/" $name) (eq $values.identity.kind "irsa") -}}
    {{- fail (printf "serviceAccount.annotations: with identity.kind irsa the chart sets %s itself" $name) -}}
  {{- end -}}
{{- end -}}
{{- if not $values.serviceAccount.create -}}
  {{- if or $values.identity.roleArn $values.serviceAccount.annotations -}}
    {{- fail (printf "serviceAccount.create is false, so the chart annotates no service account: leave identity.roleArn and serviceAccount.annotations empty, and annotate %q yourself" $values.serviceAccount.name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "stream.checks.volumes" -}}
{{- $volumes := list "pipeline" "tmp" -}}
{{- range .Values.volumes -}}
  {{- if has .name $volumes -}}{{- fail (printf "volumes: there are two of the name %q; `pipeline` and `tmp` are the chart's own" (toString .name)) -}}{{- end -}}
  {{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $places := list -}}
{{- range .Values.volumeMounts -}}
  {{- if not (has .name $volumes) -}}{{- fail (printf "volumeMounts: no entry of volumes has the name %q" (toString .name)) -}}{{- end -}}
  {{- $place := trimSuffix "/" (toString .mountPath) -}}
  {{- if regexMatch "^/(etc/stream|tmp)$" $place -}}{{- fail (printf "volumeMounts: %s is the chart's own; choose another mountPath" $place) -}}{{- end -}}
  {{- if has $place $places -}}{{- fail (printf "volumeMounts: two of them are mounted at %s" $place) -}}{{- end -}}
  {{- $places = append $places $place -}}
{{- end -}}
{{- end -}}

{{/* A quantity of memory in bytes. */}}
{{- define "stream.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "ki" 1024 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .)) | int64 -}}
{{- end -}}

{{/* A quantity of CPU in thousandths of a core. */}}
{{- define "stream.millicores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{- trimSuffix "m" $text -}}{{- else -}}{{- mulf (float64 $text) 1000 | int64 -}}{{- end -}}
{{- end -}}
