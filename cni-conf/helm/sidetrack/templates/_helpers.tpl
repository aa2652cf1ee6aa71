{{- /* Labels of every object. */ -}}
{{- define "sidetrack.labels" -}}
app.kubernetes.io/name: sidetrack-node
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sidetrack.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The directory of a platform: a list of the root, the key in .Values.cni. */ -}}
{{- define "sidetrack.directory" -}}
{{- $values := (index . 0).Values -}}
{{- $key := index . 1 -}}
{{- $platforms := dict
    "" (dict "binDir" "/opt/cni/bin" "confDir" "/etc/cni/net.d")
    "k3s" (dict "binDir" "/var/lib/rancher/k3s/data/cni" "confDir" "/var/lib/rancher/k3s/agent/etc/cni/net.d")
    "gke" (dict "binDir" "/home/kubernetes/bin")
    "openshift" (dict "binDir" "/var/lib/cni/bin" "confDir" "/etc/cni/multus/net.d")
-}}
{{- $default := merge (dict "cacheDir" "/var/lib/cni/results") (index $platforms $values.platform) (index $platforms "") -}}
{{- index $values.cni $key | default (index $default $key) -}}
{{- end }}

{{- /* Whether the installer asks the API server: "true" or nothing. */ -}}
{{- define "sidetrack.asksServer" -}}
{{- if or .Values.startupTaint.enabled (has .Values.repair.mode (list "label" "delete")) }}true{{ end -}}
{{- end }}

{{- /* Whether the installer enters pods: "true" or nothing. */ -}}
{{- define "sidetrack.entersPods" -}}
{{- if has .Values.repair.mode (list "in-place" "label" "delete") }}true{{ end -}}
{{- end }}
