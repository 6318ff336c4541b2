{{/* Rules between values that the schema cannot say in words a person understands. */}}
{{- define "labfunctions.validate" -}}
{{- $builder := .Values.builder -}}
{{- if and (eq $builder.mode "shared") (not $builder.enabled) (not (and $builder.external.address $builder.external.tlsSecret)) -}}
{{- fail "builder.enabled is false: set builder.external.address and builder.external.tlsSecret, or builder.mode to perBuild" -}}
{{- end -}}
{{- if and $builder.enabled $builder.external.address -}}
{{- fail "builder.external.address is set: set builder.enabled to false as well" -}}
{{- end -}}
{{- $registry := .Values.registry -}}
{{- if and (not $registry.enabled) (not (and $registry.external.push $registry.external.pull)) -}}
{{- fail "registry.enabled is false: set registry.external.push and registry.external.pull" -}}
{{- end -}}
{{- if and $registry.enabled $registry.external.push -}}
{{- fail "registry.external.push is set: set registry.enabled to false as well" -}}
{{- end -}}
{{- $store := .Values.store -}}
{{- if and (not $store.enabled) (not $store.external.bucket) -}}
{{- fail "store.enabled is false: set store.external.bucket" -}}
{{- end -}}
{{- if and $store.enabled $store.external.bucket -}}
{{- fail "store.external.bucket is set: set store.enabled to false as well" -}}
{{- end -}}
{{- if ne (empty .Values.existingSecrets.builderServer) (empty .Values.existingSecrets.builderClient) -}}
{{- fail "existingSecrets.builderServer and existingSecrets.builderClient belong together: set both or none" -}}
{{- end -}}
{{- end }}
