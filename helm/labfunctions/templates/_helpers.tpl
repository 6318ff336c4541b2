{{/* Labels of an object. Arguments: root, component. */}}
{{- define "labfunctions.labels" -}}
{{ include "labfunctions.selector" . }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: labfunctions
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Labels that choose the pods of a component. Arguments: root, component. */}}
{{- define "labfunctions.selector" -}}
app.kubernetes.io/name: {{ include "labfunctions.name" .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "labfunctions.name" -}}
labfunctions-{{ . | replace "builder" "buildkitd" }}
{{- end }}

{{/* Reference of one of our own images. Arguments: root, name. */}}
{{- define "labfunctions.image" -}}
{{ index .root.Values.images .name | default (printf "ghcr.io/labfunctions/%s:%s" .name .root.Chart.AppVersion) }}
{{- end }}

{{/* What every pod has. Arguments: root, values. */}}
{{- define "labfunctions.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "labfunctions.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "labfunctions.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The volume of an embedded part. Arguments: name, persistence. */}}
{{- define "labfunctions.volume" -}}
{{- if .persistence.enabled -}}
persistentVolumeClaim: {claimName: {{ .name }}}
{{- else -}}
emptyDir: {}
{{- end -}}
{{- end }}

{{/* The claim of an embedded part. Arguments: root, component, persistence, keep. */}}
{{- define "labfunctions.claim" -}}
{{- if .persistence.enabled -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "labfunctions.name" .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{ include "labfunctions.labels" . | nindent 4 }}
  {{- if .keep }}
  annotations: {helm.sh/resource-policy: keep}
  {{- end }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .persistence.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources: {requests: {storage: {{ .persistence.size }}}}
{{- end -}}
{{- end }}

{{/* What a Secret of this release holds under a key, or a new random value. Arguments: root, secret, key. */}}
{{- define "labfunctions.keptSecret" -}}
{{- $existing := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict -}}
{{- dig "data" .key "" $existing | default (randAlphaNum 40 | b64enc) -}}
{{- end }}

{{- define "labfunctions.reportsSecret" -}}
{{ .Values.existingSecrets.reports | default "labfunctions-reports" }}
{{- end }}

{{- define "labfunctions.builderClientSecret" -}}
{{- if eq .Values.builder.mode "shared" -}}
{{- if .Values.builder.enabled -}}
{{ .Values.existingSecrets.builderClient | default "labfunctions-builder-client" }}
{{- else -}}
{{ .Values.builder.external.tlsSecret }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "labfunctions.builderServerSecret" -}}
{{ .Values.existingSecrets.builderServer | default "labfunctions-builder-server" }}
{{- end }}

{{- define "labfunctions.storeSecret" -}}
{{- if .Values.store.enabled -}}
{{ .Values.existingSecrets.store | default "labfunctions-store" }}
{{- else -}}
{{ .Values.store.external.credentialsSecret }}
{{- end -}}
{{- end }}
