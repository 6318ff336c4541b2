{{/* The operator's config.yaml. */}}
{{- define "labfunctions.config" -}}
{{- $ns := .Release.Namespace -}}
{{- $builder := dict "mode" .Values.builder.mode -}}
{{- if eq .Values.builder.mode "shared" -}}
{{- $_ := set $builder "address" (.Values.builder.external.address | default (printf "tcp://labfunctions-buildkitd.%s.svc:1234" $ns)) -}}
{{- $_ := set $builder "tlsDir" "/etc/labfunctions/builder-tls" -}}
{{- end -}}
{{- $_ := set $builder "buildkitdConfig" (include "labfunctions.buildkitdConfig" .) -}}
{{- $registry := dict
  "pushRepository" (printf "labfunctions-registry.%s.svc:5000" $ns)
  "pullRepository" (printf "localhost:%d" (int .Values.registry.nodePort))
  "insecure" true -}}
{{- if not .Values.registry.enabled -}}
{{- with .Values.registry.external -}}
{{- $registry = dict "pushRepository" .push "pullRepository" .pull "insecure" .insecure -}}
{{- end -}}
{{- end -}}
{{- $store := dict
  "endpoint" (printf "http://labfunctions-store.%s.svc:7070" $ns)
  "region" "us-east-1" "bucket" .Values.store.bucket "prefix" "" -}}
{{- if not .Values.store.enabled -}}
{{- $store = pick .Values.store.external "endpoint" "region" "bucket" "prefix" -}}
{{- end -}}
{{- if include "labfunctions.storeSecret" . -}}
{{- $_ := set $store "credentialsDir" "/etc/labfunctions/store" -}}
{{- end -}}
{{- $links := int .Values.notifications.linkSeconds -}}
{{- if .Values.store.enabled -}}
{{- $links = 0 -}}
{{- end -}}
{{- dict
  "namespace" $ns
  "images" (dict
    "courier" (include "labfunctions.image" (dict "root" . "name" "courier"))
    "builder" (include "labfunctions.image" (dict "root" . "name" "builder")))
  "builder" $builder
  "registry" $registry
  "store" $store
  "reports" (dict
    "url" (printf "http://labfunctions-operator.%s.svc:8080" $ns)
    "keyFile" "/etc/labfunctions/reports/key"
    "port" 8080)
  "metrics" (dict "port" 9090)
  "notifications" (dict
    "allowedHosts" .Values.notifications.allowedHosts
    "deniedCidrs" .Values.notifications.deniedCIDRs
    "slackUrl" .Values.notifications.slackUrl
    "consoleUrl" .Values.notifications.consoleUrl
    "linkSeconds" $links)
  "autoscaling" (dict "enabled" .Values.autoscaling.enabled)
  "cacheDir" "/var/cache/labfunctions"
  | toYaml -}}
{{- end }}

{{/* buildkitd.toml, for the embedded BuildKit and for those that build pods bring along. */}}
{{- define "labfunctions.buildkitdConfig" -}}
{{- $plain := list -}}
{{- if .Values.registry.enabled -}}
{{- $plain = append $plain (printf "labfunctions-registry.%s.svc:5000" .Release.Namespace) -}}
{{- else if .Values.registry.external.insecure -}}
{{- $plain = append $plain (.Values.registry.external.push | splitList "/" | first) -}}
{{- end -}}
[worker.oci]
  rootless = true
  noProcessSandbox = true
  gc = true
  maxUsedSpace = {{ .Values.builder.cacheLimit | quote }}
{{- with .Values.builder.mirrors }}
[registry."docker.io"]
  mirrors = {{ toJson . }}
{{- end }}
{{- range (concat $plain .Values.builder.mirrors | uniq) }}
[registry.{{ . | quote }}]
  http = true
{{- end }}
{{- with .Values.builder.extraConfig }}
{{ . }}
{{- end }}
{{- end }}
