{{- /*
The flags that `settings` of a program stand for, as items of a list: rollPauseSeconds is --roll-pause-seconds. The schema has seen to it
that each is a flag of the program. What is left out, an empty list and false are no flag.
*/}}
{{- define "egress-gateway.arguments" -}}
{{- range $key, $value := .settings }}
{{- $flag := printf "--%s" (kebabcase $key) }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- {{ $flag }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- if $value }}
- {{ printf "%s=%s" $flag (join "," $value) | quote }}
{{- end }}
{{- else if or (kindIs "float64" $value) (kindIs "int64" $value) (kindIs "int" $value) }}
{{- /* A large one would be written as 2.41e+08. */}}
- {{ printf "%s=%d" $flag (int64 $value) | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "%s=%s" $flag $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "egress-gateway.labels" -}}
app.kubernetes.io/part-of: egress-gateway
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end }}
