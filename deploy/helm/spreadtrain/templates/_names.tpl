{{- define "spreadtrain.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "spreadtrain.labels" -}}
app.kubernetes.io/name: spreadtrain
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "spreadtrain.selector" -}}
app.kubernetes.io/name: spreadtrain
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spreadtrain.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "spreadtrain.rayAddress" -}}
{{- .Values.ray.address | default (printf "%s-ray-head-svc:6379" (include "spreadtrain.name" .)) -}}
{{- end }}

{{- define "spreadtrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "spreadtrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What every process that opens the store, and every node of Ray, has in its environment. */}}
{{- define "spreadtrain.nodeEnvironment" -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.store }}, key: access-key}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.store }}, key: secret-key}}
- name: RAY_AUTH_MODE
  value: token
- name: RAY_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.ray }}, key: token}}
{{- end }}

{{- define "spreadtrain.serviceEnvironment" -}}
{{ include "spreadtrain.nodeEnvironment" . }}
- name: SPREADTRAIN_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.database }}, key: url}}
- name: SPREADTRAIN_ARTIFACTS_URI
  value: {{ .Values.artifacts.uri | quote }}
{{- with .Values.artifacts.endpoint }}
- name: SPREADTRAIN_S3_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.artifacts.region }}
- name: SPREADTRAIN_S3_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.artifacts.publicEndpoint }}
- name: SPREADTRAIN_S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: SPREADTRAIN_RAY_ADDRESS
  value: {{ include "spreadtrain.rayAddress" . | quote }}
{{- end }}
