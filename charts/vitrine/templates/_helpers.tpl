{{/*
The prefix of the name of every object. 40 characters leave space for the longest suffix within the 63 of a DNS label.
*/}}
{{- define "vitrine.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "vitrine.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "vitrine.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The selector of a component's pods: (dict "root" $ "component" "api"). It is the same in all versions, because it is immutable.
*/}}
{{- define "vitrine.selectorLabels" -}}
app.kubernetes.io/name: {{ include "vitrine.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/*
Labels of an object: (dict "root" $ "component" "api").
*/}}
{{- define "vitrine.labels" -}}
{{- $own := include "vitrine.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "vitrine" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- with .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/version" (. | replace "+" "_" | trunc 63) -}}
{{- end -}}
{{- mergeOverwrite (deepCopy (default dict .root.Values.commonLabels)) $own | toYaml -}}
{{- end -}}

{{/*
Labels of a pod: (dict "root" $ "component" "api" "extra" .Values.api.podLabels). They hold neither chart nor
version, so that a new label does not replace pods.
*/}}
{{- define "vitrine.podLabels" -}}
{{- $own := include "vitrine.selectorLabels" . | fromYaml -}}
{{- mergeOverwrite (deepCopy (default dict .root.Values.commonLabels)) (deepCopy (default dict .extra)) $own | toYaml -}}
{{- end -}}

{{/*
Annotations of an object or a pod, as a whole block, or nothing: (dict "root" $ "extra" .Values.api.podAnnotations).
*/}}
{{- define "vitrine.annotations" -}}
{{- with mergeOverwrite (deepCopy (default dict .root.Values.commonAnnotations)) (deepCopy (default dict .extra)) -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/*
The metadata of an object: (dict "root" $ "component" "api" "name" "..." "annotations" (dict ...)).
*/}}
{{- define "vitrine.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "vitrine.labels" . | nindent 2 }}
{{- with include "vitrine.annotations" (dict "root" .root "extra" .annotations) }}
{{ . }}
{{- end }}
{{- end -}}

{{/*
The reference of a container image: (dict "root" $ "image" .Values.api.image). A registry that is set replaces the one in the
repository. A tag may hold a digest, "x@sha256:...", or be one.
*/}}
{{- define "vitrine.image" -}}
{{- $image := .image -}}
{{- $repository := $image.repository -}}
{{- with default .root.Values.global.imageRegistry $image.registry -}}
{{- $parts := splitn "/" 2 $repository -}}
{{- if and $parts._1 (regexMatch "[.:]" $parts._0) -}}
{{- $repository = $parts._1 -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if $image.digest -}}
{{- if $image.tag -}}
{{- printf "%s:%s@%s" $repository (regexReplaceAll "@.*$" $image.tag "") $image.digest -}}
{{- else -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- end -}}
{{- else if hasPrefix "sha256:" $tag -}}
{{- printf "%s@%s" $repository (regexReplaceAll "@.*$" $tag "") -}}
{{- else -}}
{{- printf "%s:%s" $repository $tag -}}
{{- end -}}
{{- end -}}

{{/*
imagePullSecrets of a pod, as a whole block, or nothing. Entries are names, or objects with a name.
*/}}
{{- define "vitrine.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/*
Security contexts that Pod Security "restricted" allows: (dict "uid" 65532). A container's root file system is read-only unless
"writable" is true.
*/}}
{{- define "vitrine.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "vitrine.containerSecurityContext" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ not .writable }}
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
A Go duration ("1m30s", "250ms") in whole seconds, rounded up.
*/}}
{{- define "vitrine.seconds" -}}
{{- $text := toString . -}}
{{- if not (regexMatch "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$" $text) -}}
{{- fail (printf "%q is not a duration such as 45s, 1m30s or 250ms" $text) -}}
{{- end -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(ms|s|m|h)" $text -1 -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = addf $sum (mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0) $unit)) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end -}}

{{/*
A quantity of memory ("512Mi", "1.5Gi", "100M", 1048576) in bytes.
*/}}
{{- define "vitrine.bytes" -}}
{{- $text := kindIs "string" . | ternary . (toString (int64 (kindIs "string" . | ternary 0 .))) -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$" $text) -}}
{{- fail (printf "%q is not a quantity of memory such as 512Mi" $text) -}}
{{- end -}}
{{- $units := dict "" 1.0 "k" 1000.0 "M" 1000000.0 "G" 1000000000.0 "T" 1000000000000.0 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[a-zA-Z]*$" $text)) | int64 -}}
{{- end -}}

{{/*
A CPU quantity ("1500m", "2", 2) in whole CPUs, rounded up.
*/}}
{{- define "vitrine.cpus" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}
{{- divf (trimSuffix "m" $text | float64) 1000.0 | ceil | int64 -}}
{{- else -}}
{{- ceil ($text | float64) | int64 -}}
{{- end -}}
{{- end -}}

{{/*
Merges two env lists, as YAML: (dict "base" $list "extra" $list). Extra overrides base, and no name occurs twice, because upgrades
merge by name.
*/}}
{{- define "vitrine.mergeEnv" -}}
{{- $names := dict -}}
{{- range .extra -}}{{- $_ := set $names .name true -}}{{- end -}}
{{- $all := list -}}
{{- range .base -}}
{{- if not (hasKey $names .name) -}}{{- $all = append $all . -}}{{- end -}}
{{- end -}}
{{- concat $all (default list .extra) | toYaml -}}
{{- end -}}

{{/*
The environment of every program.
*/}}
{{- define "vitrine.env.common" -}}
- name: VITRINE_LOG_LEVEL
  value: {{ .Values.log.level | quote }}
{{- end -}}

{{/*
The bounds of pipelines. They are environment, so that a change replaces the pods, whose grace period depends on them.
*/}}
{{- define "vitrine.env.bounds" -}}
{{- $bounds := .Values.pipelineBounds -}}
{{- $ports := list -}}
{{- range $bounds.allowPorts -}}{{- $ports = append $ports (int . | toString) -}}{{- end -}}
- {name: VITRINE_PIPELINE_ALLOW_CIDRS, value: {{ join "," $bounds.allowCIDRs | default "," | quote }}}
- {name: VITRINE_PIPELINE_ALLOW_PORTS, value: {{ join "," $ports | default "," | quote }}}
{{- if .Values.s3.originalsBucket }}
- {name: VITRINE_PIPELINE_ALLOW_ORIGINALS, value: "true"}
{{- end }}
- {name: VITRINE_PIPELINE_MAX_RENDITIONS, value: {{ int $bounds.maxRenditions | quote }}}
- {name: VITRINE_PIPELINE_MAX_BYTES, value: {{ include "vitrine.bytes" $bounds.maxBytes | quote }}}
- {name: VITRINE_PIPELINE_MAX_PIXELS, value: {{ int64 $bounds.maxPixels | quote }}}
- {name: VITRINE_PIPELINE_MAX_DEADLINE, value: {{ $bounds.maxDeadline | quote }}}
- {name: VITRINE_PIPELINE_MAX_TIMEOUT, value: {{ $bounds.maxTimeout | quote }}}
- {name: VITRINE_PIPELINE_MAX_PER_HOST, value: {{ int $bounds.maxPerHost | quote }}}
- {name: VITRINE_PIPELINE_MAX_AGE, value: {{ $bounds.maxAge | quote }}}
{{- end -}}

{{/*
GOMEMLIMIT for a container of one Go process: nine tenths of its memory limit. The argument is its resources; renders nothing without a limit.
*/}}
{{- define "vitrine.env.goMemory" -}}
{{- with dig "limits" "memory" "" (default dict .) -}}
- name: GOMEMLIMIT
  value: {{ div (mul (include "vitrine.bytes" . | int64) 9) 10 | toString | quote }}
{{- end -}}
{{- end -}}

{{/*
Constraints of a component with its own labelSelector: (dict "root" $ "component" "api" "constraints" ...).
*/}}
{{- define "vitrine.topologySpreadConstraints" -}}
{{- $selector := dict "matchLabels" (include "vitrine.selectorLabels" . | fromYaml) -}}
{{- $all := list -}}
{{- range .constraints -}}
{{- $all = append $all (hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" $selector) .)) -}}
{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{/*
The scheduling of a component's pods: (dict "root" $ "component" "api" "values" .Values.api), as fields of the pod's spec.
*/}}
{{- define "vitrine.scheduling" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "vitrine.topologySpreadConstraints" (dict "root" .root "component" .component "constraints" .values.topologySpreadConstraints) | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Fields that every pod has: (dict "root" $ "values" .Values.api). With "token" the pod gets a token for the API server.
*/}}
{{- define "vitrine.podBasics" -}}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with include "vitrine.imagePullSecrets" .root }}
{{ . }}
{{- end }}
securityContext:
  {{- with .values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- include "vitrine.podSecurityContext" (dict "uid" 65532) | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
The env of setup and of the init containers that wait for it, as YAML: (dict "root" $ "values" .Values.setup).
*/}}
{{- define "vitrine.env.setup" -}}
{{- $root := .root -}}
{{- $base := list (dict "name" "VITRINE_SETUP_TIMEOUT" "value" $root.Values.setup.timeout) -}}
{{- range list "common" "postgres" "kafka" "s3" -}}
{{- $base = concat $base (include (printf "vitrine.env.%s" .) $root | fromYamlArray) -}}
{{- end -}}
{{- $base = concat $base (include "vitrine.env.goMemory" $root.Values.setup.resources | fromYamlArray) -}}
{{- with .waitFor }}
{{- $base = append $base (dict "name" "VITRINE_SETUP_WAIT_FOR" "value" .) -}}
{{- end }}
{{- include "vitrine.mergeEnv" (dict "base" $base "extra" .values.extraEnv) -}}
{{- end -}}

{{/*
The init container that waits until setup has created what the program needs: (dict "root" $ "values" .Values.api). It changes
nothing, and has the same environment as the program.
*/}}
{{- define "vitrine.waitInitContainer" -}}
{{- $mounts := include "vitrine.deps.volumeMounts" .root | fromYamlArray -}}
- name: wait
  image: {{ include "vitrine.image" (dict "root" .root "image" .root.Values.api.image) | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [/usr/local/bin/vitrine, wait]
  env:
    {{- include "vitrine.env.setup" . | nindent 4 }}
  {{- with .values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat $mounts .values.extraVolumeMounts }}
  volumeMounts:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml .root.Values.setup.resources | nindent 4 }}
  securityContext:
    {{- include "vitrine.containerSecurityContext" dict | nindent 4 }}
{{- end -}}

{{/*
The probes of a program with an admin port. Liveness depends on no other server. A program is ready once Postgres (a worker: everything
that it needs) has answered; after that only if Postgres answers other pods and not this one does it become unready. The program checks by
itself, so a probe never waits.
*/}}
{{- define "vitrine.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/*
The number of codec processes of a worker.
*/}}
{{- define "vitrine.worker.children" -}}
{{- $worker := .Values.worker -}}
{{- if $worker.codecChildren -}}
{{- $worker.codecChildren | int64 -}}
{{- else -}}
{{- $cpu := dig "limits" "cpu" "" $worker.resources -}}
{{- if not $cpu -}}
{{- fail "worker.codecChildren: 0 means one for each CPU of worker.resources.limits.cpu, which is not set" -}}
{{- end -}}
{{- include "vitrine.cpus" $cpu -}}
{{- end -}}
{{- end -}}

{{/*
The memory that the processes of a worker may need together, in bytes: for each codec, what one image may add, and 128Mi that a codec
uses without one; and the worker's own. Kubernetes kills the whole container when one process runs out of memory, so the limit has to
cover all of them.
*/}}
{{- define "vitrine.worker.memory" -}}
{{- $worker := .Values.worker -}}
{{- $codec := add (include "vitrine.bytes" $worker.codecMemory | int64) 134217728 -}}
{{- add (mul (include "vitrine.worker.children" . | int64) $codec) (include "vitrine.bytes" $worker.goMemory | int64) -}}
{{- end -}}

{{/*
The memory of all sources of a worker, in bytes: a third of goMemory without 64Mi, because each source may need a growing buffer, its
renditions, and garbage of earlier ones.
*/}}
{{- define "vitrine.worker.sources" -}}
{{- max (div (sub (include "vitrine.bytes" .Values.worker.goMemory | int64) 67108864) 3) 1048576 | toString -}}
{{- end -}}

{{/*
The resources of a worker. The default of the memory limit is computed from its processes.
*/}}
{{- define "vitrine.worker.resources" -}}
{{- $resources := deepCopy .Values.worker.resources -}}
{{- $needed := include "vitrine.worker.memory" . | int64 -}}
{{- $limits := default dict $resources.limits -}}
{{- if $limits.memory -}}
{{- if lt (include "vitrine.bytes" $limits.memory | int64) $needed -}}
{{- fail (printf "worker.resources.limits.memory: %v is less than the %dMi that the worker and its %s codecs may use together (goMemory, and codecMemory and 128Mi for each codec)" $limits.memory (div (add $needed 1048575) 1048576) (include "vitrine.worker.children" .)) -}}
{{- end -}}
{{- else -}}
{{- $_ := set $limits "memory" (printf "%dMi" (div (add $needed 1048575) 1048576)) -}}
{{- end -}}
{{- $_ := set $resources "limits" $limits -}}
{{- $resources | toYaml -}}
{{- end -}}

{{/*
The time that a worker has to stop, in seconds: the maximum time of one image from its download to its outcome, under any pipeline that
the bounds allow, and at least what the program requires (half of the group's rebalance timeout for jobs in progress, twice outcomeTimeout for their release, and 5 s to leave
the group).
*/}}
{{- define "vitrine.worker.grace" -}}
{{- with .Values.worker.shutdown.grace -}}
{{- include "vitrine.seconds" . -}}
{{- else -}}
{{- $sum := 0 -}}
{{- range list .Values.pipelineBounds.maxTimeout .Values.pipelineBounds.maxDeadline .Values.worker.storeBudget .Values.worker.outcomeTimeout -}}
{{- $sum = add $sum (include "vitrine.seconds" . | int64) -}}
{{- end -}}
{{- max $sum (add 35 (mul 2 (include "vitrine.seconds" .Values.worker.outcomeTimeout | int64))) -}}
{{- end -}}
{{- end -}}

{{/*
The ConfigMap with the ImagePipeline. The one that the controller writes has another name than the chart's, which Helm deletes when
`pipelineFrom` changes.
*/}}
{{- define "vitrine.pipeline.configMap" -}}
{{- include "vitrine.fullname" . }}-{{ eq .Values.pipelineFrom "resource" | ternary "published-pipeline" "pipeline" }}
{{- end -}}

{{/*
The mount of the ImagePipeline. It is a directory, not a subPath, because only directories are updated with the ConfigMap. A pod waits
for a ConfigMap that does not exist yet.
*/}}
{{- define "vitrine.pipeline.volume" -}}
- name: pipeline
  configMap:
    name: {{ include "vitrine.pipeline.configMap" . }}
    {{- if eq .Values.pipelineFrom "resource" }}
    optional: false
    {{- end }}
{{- end -}}

{{/*
The backend of ingress.media.path, as JSON {name, port}: the given Service, or the one of the store.
*/}}
{{- define "vitrine.media.service" -}}
{{- $given := .Values.ingress.media.service -}}
{{- if $given.name -}}
{{- dict "name" $given.name "port" $given.port | toJson -}}
{{- else -}}
{{- include "vitrine.s3.service" . -}}
{{- end -}}
{{- end -}}

{{/*
The egress rule for DNS.
*/}}
{{- define "vitrine.egress.dns" -}}
- ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
{{- end -}}

{{/*
All addresses except those of the clouds' metadata servers, which also serve credentials.
*/}}
{{- define "vitrine.egress.anywhere" -}}
- ipBlock: {cidr: 0.0.0.0/0, except: [100.100.100.200/32, 168.63.129.16/32, 169.254.0.0/16, 192.0.0.192/32]}
- ipBlock: {cidr: "::/0", except: ["fd00:ec2::254/128", "fe80::/10"]}
{{- end -}}

{{/*
All public addresses: without private, metadata and other special networks.
*/}}
{{- define "vitrine.egress.world" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      - 0.0.0.0/8
      - 10.0.0.0/8
      - 100.64.0.0/10
      - 127.0.0.0/8
      - 168.63.129.16/32
      - 169.254.0.0/16
      - 172.16.0.0/12
      - 192.0.0.0/24
      - 192.0.2.0/24
      - 192.31.196.0/24
      - 192.52.193.0/24
      - 192.88.99.0/24
      - 192.168.0.0/16
      - 192.175.48.0/24
      - 198.18.0.0/15
      - 198.51.100.0/24
      - 203.0.113.0/24
      - 224.0.0.0/4
      - 240.0.0.0/4
- ipBlock:
    cidr: 2000::/3
    except:
      - 2001::/23
      - 2001:db8::/32
      - 2002::/16
      - 2620:4f:8000::/48
      - 3fff::/20
{{- end -}}

{{/*
Egress rules for the servers that a component is configured to use: (dict "root" $ "component" "api"). An external server whose networks
are not given may have any address except those of metadata servers, on its port. For a server with a public address, the workers' rule
allows public addresses only, because downloads of sources must not reach private networks through it.
*/}}
{{- define "vitrine.egress" -}}
{{- $component := .component -}}
{{- include "vitrine.egress.dns" .root }}
{{- $seen := dict }}
{{- range include "vitrine.endpoints" .root | fromJsonArray }}
{{- $peer := dict "port" .port "podSelector" .podSelector "cidrs" .cidrs "public" .public | toJson }}
{{- if and (has $component .for) (not (hasKey $seen $peer)) }}
{{- $_ := set $seen $peer true }}
# {{ .name }}
- ports:
    - {protocol: TCP, port: {{ int .port }}}
  {{- if .podSelector }}
  to:
    - podSelector:
        matchLabels:
          {{- toYaml .podSelector | nindent 10 }}
  {{- else if .cidrs }}
  to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- else }}
  to:
    {{- include (and .public (eq $component "worker") | default false | ternary "vitrine.egress.world" "vitrine.egress.anywhere") . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
