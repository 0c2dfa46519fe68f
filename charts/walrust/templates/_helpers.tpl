{{/* Name of the release's objects. */}}
{{- define "walrust.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of objects without a namespace. An operator of some namespaces may stand beside others. */}}
{{- define "walrust.clusterName" -}}
{{- if .Values.watchNamespaces -}}
{{- printf "%s-%s" (include "walrust.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- include "walrust.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* What Services and Deployments select. */}}
{{- define "walrust.selector" -}}
app.kubernetes.io/name: walrust-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "walrust.labels" -}}
{{ include "walrust.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: walrust
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "walrust.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "walrust.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image of (dict "image" … "root" …). */}}
{{- define "walrust.image" -}}
{{- $name := .image.repository -}}
{{- if .image.registry -}}{{- $name = printf "%s/%s" .image.registry $name -}}{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "walrust.webhookSecret" -}}
{{- if and (eq .Values.webhook.certs.mode "existingSecret") (not .Values.webhook.certs.secretName) -}}
{{- fail "webhook.certs.secretName is needed when webhook.certs.mode is existingSecret" -}}
{{- end -}}
{{- default (printf "%s-webhook-tls" (include "walrust.fullname" .)) .Values.webhook.certs.secretName -}}
{{- end -}}

{{- define "walrust.webhookService" -}}
{{- printf "%s-webhook" (include "walrust.fullname" .) -}}
{{- end -}}

{{/* Which namespaces admission looks at. */}}
{{- define "walrust.namespaceSelector" -}}
{{- $selector := deepCopy .Values.webhook.namespaceSelector -}}
{{- if .Values.watchNamespaces -}}
{{- $own := dict "key" "kubernetes.io/metadata.name" "operator" "In" "values" .Values.watchNamespaces -}}
{{- $_ := set $selector "matchExpressions" (append (default list $selector.matchExpressions) $own) -}}
{{- end -}}
{{- toYaml $selector -}}
{{- end -}}
