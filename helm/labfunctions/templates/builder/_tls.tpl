{{/* The certificates of BuildKit and its clients: those in the cluster, or new ones of a new CA whose key is forgotten. */}}
{{- define "labfunctions.builderTls" -}}
{{- $server := lookup "v1" "Secret" .Release.Namespace "labfunctions-builder-server" -}}
{{- $client := lookup "v1" "Secret" .Release.Namespace "labfunctions-builder-client" -}}
{{- if and $server $client -}}
{{- dict "server" $server.data "client" $client.data | toJson -}}
{{- else -}}
{{- $name := "labfunctions-buildkitd" -}}
{{- $names := list $name }}
{{- range list "" ".svc" ".svc.cluster.local" -}}
{{- $names = append $names (printf "%s.%s%s" $name $.Release.Namespace .) -}}
{{- end -}}
{{- $ca := genCA $name 3650 -}}
{{- $serverCert := genSignedCert $name nil $names 3650 $ca -}}
{{- $clientCert := genSignedCert "labfunctions-operator" nil nil 3650 $ca -}}
{{- dict
  "server" (dict "ca.crt" ($ca.Cert | b64enc) "tls.crt" ($serverCert.Cert | b64enc) "tls.key" ($serverCert.Key | b64enc))
  "client" (dict "ca.crt" ($ca.Cert | b64enc) "tls.crt" ($clientCert.Cert | b64enc) "tls.key" ($clientCert.Key | b64enc))
  | toJson -}}
{{- end -}}
{{- end }}
