{{- define "vorrang.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "vorrang.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "vorrang.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "vorrang.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vorrang.selector" -}}
app.kubernetes.io/name: {{ include "vorrang.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vorrang.labels" -}}
{{ include "vorrang.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "vorrang.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "vorrang.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* "yes" if this chart can see where the queue's Redis is, or cannot look. */ -}}
{{- define "vorrang.hasRedis" -}}
{{- $ours := default dict (default dict .Values.config).vorrang_settings -}}
{{- $router := default dict (default dict .Values.config).router_settings -}}
{{- $litellm := default dict (default dict .Values.config).litellm_settings -}}
{{- $general := default dict (default dict .Values.config).general_settings -}}
{{- $named := or .Values.redis.url .Values.redis.existingSecret $general.coordination_redis $litellm.cache_params $router.cache_kwargs -}}
{{- range list "redis_url" "redis_host" "redis_startup_nodes" "startup_nodes" "redis_sentinel_nodes" "sentinel_nodes" -}}
{{- if or (index $ours .) (index $router .) }}{{ $named = true }}{{ end -}}
{{- end -}}
{{- range .Values.env -}}
{{- if has .name (list "VORRANG_REDIS_URL" "REDIS_CLUSTER_NODES" "REDIS_SENTINEL_NODES") }}{{ $named = true }}{{ end -}}
{{- end -}}
{{- if or $named .Values.existingConfigMap .Values.secrets.existing (hasKey .Values.secrets.create "VORRANG_REDIS_URL") -}}
yes
{{- end -}}
{{- end -}}

{{- /* grace_seconds of the configuration, with what comes before it (shutdown_delay_seconds): whole seconds. */ -}}
{{- define "vorrang.grace" -}}
{{- $ours := default dict (default dict .Values.config).vorrang_settings -}}
{{- $grace := 30 -}}
{{- if hasKey $ours "grace_seconds" -}}
{{- $grace = $ours.grace_seconds -}}
{{- end -}}
{{- $delay := default 0 $ours.shutdown_delay_seconds -}}
{{- ceil (addf (float64 $grace) (float64 $delay)) | int -}}
{{- end -}}

{{- /* After the grace time answers are read, sessions are closed and spans are sent: 2 s each. */ -}}
{{- define "vorrang.terminationGracePeriod" -}}
{{- $needed := add .Values.rollout.preStopSeconds (include "vorrang.grace" . | int) 10 -}}
{{- if kindIs "invalid" .Values.rollout.terminationGracePeriodSeconds -}}
{{- $needed -}}
{{- else if and (lt (int .Values.rollout.terminationGracePeriodSeconds) (int $needed)) (not .Values.existingConfigMap) -}}
{{- fail (printf "rollout.terminationGracePeriodSeconds has to be at least %d: preStopSeconds, grace_seconds, and 10 more" (int $needed)) -}}
{{- else -}}
{{- int .Values.rollout.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}
