{{/*
The addresses of Postgres, Kafka, Redis and S3. "vitrine.postgres", "vitrine.kafka", "vitrine.redis" and "vitrine.s3" return them as
JSON for dev, operator and external alike. Everything else is derived from them, so that it is consistent: the environment of the pods,
the mounts of certificates, KEDA's trigger and its secrets, and the NetworkPolicies.

Hosts end in ".svc". Such a name resolves through the search path of every pod, with any cluster domain, and it is the longest name in
the certificates of both operators.
*/}}

{{- define "vitrine.postgres" -}}
{{- $v := .Values.postgres -}}
{{- $name := printf "%s-postgres" (include "vitrine.fullname" .) -}}
{{- if $v.dev.enabled -}}
{{- dict "host" (printf "%s.%s.svc" $name .Release.Namespace) "port" 5432 "database" "vitrine" "sslMode" "disable"
  "secret" (default $name $v.dev.existingSecret) "usernameKey" "username" "passwordKey" "password"
  "podLabels" (include "vitrine.selectorLabels" (dict "root" . "component" "postgres") | fromYaml) | toJson -}}
{{- else if $v.operator.enabled -}}
{{- dict "host" (printf "%s-rw.%s.svc" $name .Release.Namespace) "port" 5432 "database" "vitrine" "sslMode" "verify-full"
  "secret" (printf "%s-app" $name) "usernameKey" "username" "passwordKey" "password"
  "caSecret" (printf "%s-ca" $name) "caKey" "ca.crt" "podLabels" (dict "cnpg.io/cluster" $name) | toJson -}}
{{- else -}}
{{- $e := $v.external -}}
{{- dict "host" $e.host "port" $e.port "database" $e.database "sslMode" $e.sslMode
  "secret" $e.existingSecret "usernameKey" $e.usernameKey "passwordKey" $e.passwordKey
  "caSecret" $e.caSecret "caKey" $e.caKey "cidrs" $e.cidrs | toJson -}}
{{- end -}}
{{- end -}}

{{- define "vitrine.kafka" -}}
{{- $v := .Values.kafka -}}
{{- $name := printf "%s-kafka" (include "vitrine.fullname" .) -}}
{{- $brokers := 3 -}}
{{- $d := dict "version" "2.8.0" "sasl" dict "tls" (dict "enabled" false) -}}
{{- if $v.dev.enabled -}}
{{- $brokers = int $v.dev.replicas -}}
{{- $servers := list -}}
{{- range $i := until $brokers -}}
{{- $servers = append $servers (printf "%s-%d.%s.%s.svc:9092" $name $i $name $.Release.Namespace) -}}
{{- end -}}
{{- $d = merge (dict "servers" $servers "podLabels" (include "vitrine.selectorLabels" (dict "root" . "component" "kafka") | fromYaml)) $d -}}
{{- else if $v.operator.enabled -}}
{{- $brokers = int $v.operator.replicas -}}
{{- $d = merge (dict "servers" (list (printf "%s-kafka-bootstrap.%s.svc:9093" $name .Release.Namespace))
  "tls" (dict "enabled" true "caSecret" (printf "%s-cluster-ca-cert" $name) "caKey" "ca.crt")
  "sasl" (dict "mechanism" "SCRAM-SHA-512" "userSecret" (printf "%s-client" $name) "userKey" "username"
    "passwordSecret" (printf "%s-user" $name) "passwordKey" "password")
  "podLabels" (dict "strimzi.io/cluster" $name "strimzi.io/kind" "Kafka")) $d -}}
{{- else -}}
{{- $e := $v.external -}}
{{- $tls := dict "enabled" $e.tls.enabled -}}
{{- if and $e.tls.enabled $e.tls.existingSecret -}}
{{- $tls = merge $tls (dict "caSecret" (ternary $e.tls.existingSecret "" (ne $e.tls.caKey "")) "caKey" $e.tls.caKey
  "certSecret" (ternary $e.tls.existingSecret "" (ne $e.tls.certKey "")) "certKey" $e.tls.certKey "keyKey" $e.tls.keyKey) -}}
{{- end -}}
{{- $sasl := dict -}}
{{- if $e.sasl.mechanism -}}
{{- $sasl = dict "mechanism" $e.sasl.mechanism "userSecret" $e.sasl.existingSecret "userKey" $e.sasl.usernameKey
  "passwordSecret" $e.sasl.existingSecret "passwordKey" $e.sasl.passwordKey -}}
{{- end -}}
{{- $d = merge (dict "servers" $e.bootstrapServers "version" $e.version "tls" $tls "sasl" $sasl "cidrs" $e.cidrs) $d -}}
{{- end -}}
{{- $replication := int $v.topics.replication | default (min 3 $brokers | int) -}}
{{- $least := int $v.topics.minInsyncReplicas | default (max 1 (sub $replication 1) | int) -}}
{{- merge (dict "replication" $replication "minInsyncReplicas" $least) $d | toJson -}}
{{- end -}}

{{- define "vitrine.redis" -}}
{{- $v := .Values.redis -}}
{{- $name := printf "%s-redis" (include "vitrine.fullname" .) -}}
{{- if $v.dev.enabled -}}
{{- $addresses := list -}}
{{- range $i := until (int $v.dev.nodes) -}}
{{- $addresses = append $addresses (printf "%s-%d.%s.%s.svc:6379" $name $i $name $.Release.Namespace) -}}
{{- end -}}
{{- dict "addresses" $addresses "tls" false "secret" (default $name $v.dev.existingSecret) "passwordKey" "password"
  "podLabels" (include "vitrine.selectorLabels" (dict "root" . "component" "redis") | fromYaml) | toJson -}}
{{- else -}}
{{- $e := $v.external -}}
{{- dict "addresses" $e.addresses "tls" $e.tls.enabled "caSecret" $e.tls.caSecret "caKey" $e.tls.caKey
  "secret" $e.existingSecret "usernameKey" $e.usernameKey "passwordKey" $e.passwordKey "cidrs" $e.cidrs | toJson -}}
{{- end -}}
{{- end -}}

{{- define "vitrine.s3" -}}
{{- $v := .Values.s3 -}}
{{- $name := printf "%s-minio" (include "vitrine.fullname" .) -}}
{{- if $v.dev.enabled -}}
{{- $host := printf "%s.%s.svc" $name .Release.Namespace -}}
{{- dict "endpoint" (printf "http://%s:9000" $host) "region" "us-east-1" "pathStyle" true "createBucket" true "publicRead" true
  "secret" (default $name $v.dev.existingSecret) "accessKeyKey" "access-key" "secretKeyKey" "secret-key"
  "scheme" "http" "host" $host "port" 9000 "service" $name
  "podLabels" (include "vitrine.selectorLabels" (dict "root" . "component" "minio") | fromYaml) | toJson -}}
{{- else -}}
{{- $e := $v.external -}}
{{- $url := urlParse (default (printf "https://s3.%s.amazonaws.com" $e.region) $e.endpoint) -}}
{{- $host := regexReplaceAll ":[0-9]+$" $url.host "" -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) | int -}}
{{- dict "endpoint" $e.endpoint "region" $e.region "pathStyle" $e.pathStyle "createBucket" $e.createBucket "publicRead" $e.publicRead
  "secret" $e.existingSecret "accessKeyKey" $e.accessKeyKey "secretKeyKey" $e.secretKeyKey "caSecret" $e.caSecret "caKey" $e.caKey
  "public" (and (regexMatch "\\.amazonaws\\.com(\\.cn)?$" $host) (not (contains ".vpce." $host)))
  "scheme" $url.scheme "host" (ternary $host (printf "%s.%s" $v.bucket $host) $e.pathStyle) "port" $port
  "service" (printf "%s-media" (include "vitrine.fullname" .)) "cidrs" $e.cidrs | toJson -}}
{{- end -}}
{{- end -}}

{{/*
The Service that serves GET /BUCKET/KEY, for the Ingress: JSON with name and port.
*/}}
{{- define "vitrine.s3.service" -}}
{{- $s3 := include "vitrine.s3" . | fromJson -}}
{{- dict "name" $s3.service "port" (int $s3.port) | toJson -}}
{{- end -}}

{{/*
The public base URL of images: the setting, or the Ingress, or the store.
*/}}
{{- define "vitrine.s3.publicUrl" -}}
{{- $s3 := include "vitrine.s3" . | fromJson -}}
{{- $ingress := .Values.ingress -}}
{{- if .Values.s3.publicUrl -}}
{{- .Values.s3.publicUrl | trimSuffix "/" -}}
{{- else if and $ingress.enabled $ingress.media.enabled -}}
{{- printf "%s://%s%s" (ternary "https" "http" $ingress.tls.enabled) $ingress.host ($ingress.media.path | trimSuffix "/") -}}
{{- else -}}
{{- $port := int $s3.port -}}
{{- $usual := eq $port (ternary 80 443 (eq $s3.scheme "http")) -}}
{{- printf "%s://%s%s%s" $s3.scheme $s3.host (ternary "" (printf ":%d" $port) $usual) (ternary (printf "/%s" .Values.s3.bucket) "" $s3.pathStyle) -}}
{{- end -}}
{{- end -}}

{{/*
The environment of the pods, as lists for `env:`.
*/}}
{{- define "vitrine.env.postgres" -}}
{{- $d := include "vitrine.postgres" . | fromJson -}}
{{- $host := ternary (printf "[%s]" $d.host) $d.host (contains ":" $d.host) -}}
{{- $dsn := printf "postgres://%s:%d/%s?sslmode=%s" $host (int $d.port) ($d.database | urlquery | replace "+" "%20") $d.sslMode -}}
- name: VITRINE_POSTGRES_DSN
  value: {{ ternary (printf "%s&sslrootcert=/etc/vitrine/tls/postgres/ca.crt" $dsn) $dsn (not (empty $d.caSecret)) | quote }}
- name: VITRINE_POSTGRES_USERNAME
  {{- include "vitrine.fromSecret" (list $d.secret $d.usernameKey) | nindent 2 }}
- name: VITRINE_POSTGRES_PASSWORD
  {{- include "vitrine.fromSecret" (list $d.secret $d.passwordKey) | nindent 2 }}
{{- end -}}

{{- define "vitrine.env.kafka" -}}
{{- $d := include "vitrine.kafka" . | fromJson -}}
{{- $topics := .Values.kafka.topics -}}
- name: VITRINE_KAFKA_BROKERS
  value: {{ join "," $d.servers | quote }}
- name: VITRINE_KAFKA_VERSION
  value: {{ $d.version | quote }}
- name: VITRINE_KAFKA_PARTITIONS
  value: {{ int $topics.partitions | quote }}
- name: VITRINE_KAFKA_REPLICATION
  value: {{ int $d.replication | quote }}
- name: VITRINE_KAFKA_MIN_ISR
  value: {{ int $d.minInsyncReplicas | quote }}
{{- with $topics.prefix }}
- name: VITRINE_KAFKA_TOPIC_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if $d.tls.enabled }}
- name: VITRINE_KAFKA_TLS_ENABLED
  value: "true"
{{- if $d.tls.caSecret }}
- name: VITRINE_KAFKA_TLS_CA_FILE
  value: /etc/vitrine/tls/kafka/ca.crt
{{- end }}
{{- if $d.tls.certSecret }}
- name: VITRINE_KAFKA_TLS_CERT_FILE
  value: /etc/vitrine/tls/kafka/tls.crt
- name: VITRINE_KAFKA_TLS_KEY_FILE
  value: /etc/vitrine/tls/kafka/tls.key
{{- end }}
{{- end }}
{{- with $d.sasl.mechanism }}
- name: VITRINE_KAFKA_SASL_MECHANISM
  value: {{ . }}
- name: VITRINE_KAFKA_SASL_USER
  {{- include "vitrine.fromSecret" (list $d.sasl.userSecret $d.sasl.userKey) | nindent 2 }}
- name: VITRINE_KAFKA_SASL_PASSWORD
  {{- include "vitrine.fromSecret" (list $d.sasl.passwordSecret $d.sasl.passwordKey) | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "vitrine.env.redis" -}}
{{- $d := include "vitrine.redis" . | fromJson -}}
- name: VITRINE_REDIS_ADDRS
  value: {{ join "," $d.addresses | quote }}
{{- with .Values.redis.name }}
- name: VITRINE_REDIS_NAME
  value: {{ . | quote }}
{{- end }}
{{- if $d.tls }}
- name: VITRINE_REDIS_TLS
  value: "true"
{{- if $d.caSecret }}
- name: VITRINE_REDIS_TLS_CA_FILE
  value: /etc/vitrine/tls/redis/ca.crt
{{- end }}
{{- end }}
{{- if $d.secret }}
{{- if $d.usernameKey }}
- name: VITRINE_REDIS_USERNAME
  {{- include "vitrine.fromSecret" (list $d.secret $d.usernameKey) | nindent 2 }}
{{- end }}
- name: VITRINE_REDIS_PASSWORD
  {{- include "vitrine.fromSecret" (list $d.secret $d.passwordKey) | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "vitrine.env.s3" -}}
{{- $d := include "vitrine.s3" . | fromJson -}}
{{- with $d.endpoint -}}
- name: VITRINE_S3_ENDPOINT
  value: {{ . | quote }}
{{ end -}}
- name: VITRINE_S3_REGION
  value: {{ $d.region | quote }}
- name: VITRINE_S3_BUCKET
  value: {{ .Values.s3.bucket | quote }}
{{- with .Values.s3.originalsBucket }}
- name: VITRINE_S3_ORIGINALS_BUCKET
  value: {{ . | quote }}
{{- end }}
- name: VITRINE_S3_PATH_STYLE
  value: {{ $d.pathStyle | quote }}
- name: VITRINE_S3_PUBLIC_URL
  value: {{ include "vitrine.s3.publicUrl" . | quote }}
{{- if $d.caSecret }}
- name: VITRINE_S3_CA_FILE
  value: /etc/vitrine/tls/s3/ca.crt
{{- end }}
{{- if $d.secret }}
- name: VITRINE_S3_ACCESS_KEY
  {{- include "vitrine.fromSecret" (list $d.secret $d.accessKeyKey) | nindent 2 }}
- name: VITRINE_S3_SECRET_KEY
  {{- include "vitrine.fromSecret" (list $d.secret $d.secretKeyKey) | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The environment about S3 that only setup has.
*/}}
{{- define "vitrine.env.s3.setup" -}}
{{- $d := include "vitrine.s3" . | fromJson -}}
- name: VITRINE_S3_CREATE_BUCKET
  value: {{ $d.createBucket | quote }}
- name: VITRINE_S3_PUBLIC_READ
  value: {{ $d.publicRead | quote }}
{{- end -}}

{{- define "vitrine.fromSecret" -}}
valueFrom:
  secretKeyRef:
    name: {{ index . 0 | quote }}
    key: {{ index . 1 | quote }}
{{- end -}}

{{/*
Certificates: one volume for each dependency with certificates. It holds only the named keys, because CloudNativePG keeps the CA's
private key in the same secret. The names of the files do not depend on the names of the keys. The argument is $, or for some servers
only (dict "root" $ "servers" (list "postgres")); the same holds for the volumes and their mounts.
*/}}
{{- define "vitrine.deps.certificates" -}}
{{- $all := dict -}}
{{- $root := .root | default . -}}
{{- range $name := .servers | default (list "postgres" "kafka" "redis" "s3") -}}
{{- $d := include (printf "vitrine.%s" $name) $root | fromJson -}}
{{- $tls := ternary $d.tls $d (eq $name "kafka") -}}
{{- $items := list -}}
{{- $secret := "" -}}
{{- if and (eq $name "redis") (not $d.tls) -}}{{- $tls = dict -}}{{- end -}}
{{- with $tls.caSecret -}}
{{- $secret = . -}}
{{- $items = append $items (dict "key" $tls.caKey "path" "ca.crt") -}}
{{- end -}}
{{- with $tls.certSecret -}}
{{- $secret = . -}}
{{- $items = concat $items (list (dict "key" $tls.certKey "path" "tls.crt") (dict "key" $tls.keyKey "path" "tls.key")) -}}
{{- end -}}
{{- if $secret -}}
{{- $_ := set $all $name (dict "secret" $secret "items" $items) -}}
{{- end -}}
{{- end -}}
{{- $all | toJson -}}
{{- end -}}

{{- define "vitrine.deps.volumes" -}}
{{- $all := list -}}
{{- range $name, $c := include "vitrine.deps.certificates" . | fromJson -}}
{{- $all = append $all (dict "name" (printf "tls-%s" $name) "secret" (dict "secretName" $c.secret "items" $c.items)) -}}
{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{- define "vitrine.deps.volumeMounts" -}}
{{- $all := list -}}
{{- range $name, $_ := include "vitrine.deps.certificates" . | fromJson -}}
{{- $all = append $all (dict "name" (printf "tls-%s" $name) "mountPath" (printf "/etc/vitrine/tls/%s" $name) "readOnly" true) -}}
{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{/*
The brokers for KEDA's Kafka trigger, in its notation, and the secrets that it reads; both are the same as for the pods. "version" is
always set, because KEDA's default protocol version is one that Kafka 4 rejects.
*/}}
{{- define "vitrine.kafka.trigger" -}}
{{- $d := include "vitrine.kafka" . | fromJson -}}
bootstrapServers: {{ join "," $d.servers | quote }}
version: {{ $d.version | quote }}
{{- if $d.tls.enabled }}
tls: enable
{{- end }}
{{- with $d.sasl.mechanism }}
sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") . }}
{{- end }}
{{- end -}}

{{- define "vitrine.kafka.triggerAuth" -}}
{{- $d := include "vitrine.kafka" . | fromJson -}}
{{- $refs := list -}}
{{- if $d.tls.caSecret -}}
{{- $refs = append $refs (dict "parameter" "ca" "name" $d.tls.caSecret "key" $d.tls.caKey) -}}
{{- end -}}
{{- if $d.tls.certSecret -}}
{{- $refs = concat $refs (list (dict "parameter" "cert" "name" $d.tls.certSecret "key" $d.tls.certKey)
  (dict "parameter" "key" "name" $d.tls.certSecret "key" $d.tls.keyKey)) -}}
{{- end -}}
{{- if $d.sasl.mechanism -}}
{{- $refs = concat $refs (list (dict "parameter" "username" "name" $d.sasl.userSecret "key" $d.sasl.userKey)
  (dict "parameter" "password" "name" $d.sasl.passwordSecret "key" $d.sasl.passwordKey)) -}}
{{- end -}}
{{- if $refs -}}
{{- $refs | toYaml -}}
{{- end -}}
{{- end -}}

{{/*
Every address that a pod connects to, as a JSON list of {name, host, port, for, and podSelector or cidrs}, for the NetworkPolicies.
podSelector holds labels of pods in this namespace. Empty cidrs mean any address or, with "public", any public address.
*/}}
{{- define "vitrine.endpoints" -}}
{{- $all := list -}}
{{- $everybody := list "api" "worker" "setup" -}}
{{- $d := include "vitrine.postgres" . | fromJson -}}
{{- $all = append $all (dict "name" "postgres" "for" (append $everybody "controller") "address" (printf "%s:%d" (ternary (printf "[%s]" $d.host) $d.host (contains ":" $d.host)) (int $d.port)) "of" $d) -}}
{{- $d = include "vitrine.kafka" . | fromJson -}}
{{- range $d.servers -}}
{{- $all = append $all (dict "name" "kafka" "for" $everybody "address" . "of" $d) -}}
{{- end -}}
{{- $d = include "vitrine.redis" . | fromJson -}}
{{- range $d.addresses -}}
{{- $all = append $all (dict "name" "redis" "for" (list "api" "worker") "address" . "of" $d) -}}
{{- end -}}
{{- $d = include "vitrine.s3" . | fromJson -}}
{{- $all = append $all (dict "name" "s3" "for" $everybody "address" (printf "%s:%d" $d.host (int $d.port)) "of" $d) -}}
{{- if and .Values.s3.external.enabled (not $d.secret) -}}
{{- /* STS exchanges a workload identity for credentials. */ -}}
{{- $all = append $all (dict "name" "sts" "for" $everybody "address" (printf "sts.%s.amazonaws.com:443" $d.region) "of" (dict "public" true)) -}}
{{- end -}}
{{- $result := list -}}
{{- range $all -}}
{{- $host := regexReplaceAll ":[0-9]+$" .address "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $entry := dict "name" .name "for" .for "host" $host "port" (regexFind "[0-9]+$" .address | int) -}}
{{- if .of.podLabels -}}
{{- $_ := set $entry "podSelector" .of.podLabels -}}
{{- else if .of.cidrs -}}
{{- $_ := set $entry "cidrs" .of.cidrs -}}
{{- else if has .name (list "kafka" "redis") -}}
{{- /* The named addresses are only the first ones; those servers report the others. */ -}}
{{- $_ := set $entry "cidrs" list -}}
{{- else if regexMatch "^[0-9]{1,3}(\\.[0-9]{1,3}){3}$" $host -}}
{{- $_ := set $entry "cidrs" (list (printf "%s/32" $host)) -}}
{{- else if contains ":" $host -}}
{{- $_ := set $entry "cidrs" (list (printf "%s/128" $host)) -}}
{{- else -}}
{{- $_ := set $entry "cidrs" list -}}
{{- $_ := set $entry "public" (default false .of.public) -}}
{{- end -}}
{{- $result = append $result $entry -}}
{{- end -}}
{{- $result | toJson -}}
{{- end -}}

{{/*
Fails with all mistakes at once; each message names the keys to change. Renders nothing.
*/}}
{{- define "vitrine.validate.dependencies" -}}
{{- $wrong := list -}}
{{- range $name, $ways := dict "postgres" (list "dev" "operator" "external") "kafka" (list "dev" "operator" "external") "redis" (list "dev" "external") "s3" (list "dev" "external") -}}
{{- $keys := list -}}
{{- $on := list -}}
{{- range $way := $ways -}}
{{- $key := printf "%s.%s.enabled" $name $way -}}
{{- $keys = append $keys $key -}}
{{- if get (get (get $.Values $name) $way) "enabled" -}}{{- $on = append $on $key -}}{{- end -}}
{{- end -}}
{{- if ne (len $on) 1 -}}
{{- $wrong = append $wrong (printf "%s: enable exactly one of %s (enabled: %s)" $name (join ", " $keys) (join ", " $on | default "none")) -}}
{{- end -}}
{{- end -}}
{{- with .Values.postgres.external -}}
{{- if .enabled -}}
{{- if not .host -}}{{- $wrong = append $wrong "postgres.external.host: name the primary's host" -}}{{- end -}}
{{- if not .existingSecret -}}{{- $wrong = append $wrong "postgres.external.existingSecret: name the secret with user name and password" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.postgres.operator -}}
{{- if and .enabled (ge (int .synchronousStandbys) (int .instances)) -}}
{{- $wrong = append $wrong (printf "postgres.operator.synchronousStandbys: %d must be less than postgres.operator.instances (%d), or nothing could be committed" (int .synchronousStandbys) (int .instances)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.kafka.external -}}
{{- if .enabled -}}
{{- if not .bootstrapServers -}}{{- $wrong = append $wrong "kafka.external.bootstrapServers: name at least one broker, as host:port" -}}{{- end -}}
{{- if and .sasl.mechanism (not .sasl.existingSecret) -}}{{- $wrong = append $wrong (printf "kafka.external.sasl.existingSecret: %s needs the secret with user name and password" .sasl.mechanism) -}}{{- end -}}
{{- if and .sasl.existingSecret (not .sasl.mechanism) -}}{{- $wrong = append $wrong "kafka.external.sasl.mechanism: a secret is given, so say PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512" -}}{{- end -}}
{{- if and .tls.existingSecret (not .tls.enabled) -}}{{- $wrong = append $wrong "kafka.external.tls.enabled: must be true, since kafka.external.tls.existingSecret is set" -}}{{- end -}}
{{- if ne (empty .tls.certKey) (empty .tls.keyKey) -}}{{- $wrong = append $wrong "kafka.external.tls: certKey and keyKey go together" -}}{{- end -}}
{{- if and .tls.certKey (not .tls.existingSecret) -}}{{- $wrong = append $wrong "kafka.external.tls.existingSecret: name the secret that has kafka.external.tls.certKey" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.redis.external -}}
{{- if .enabled -}}
{{- if not .addresses -}}{{- $wrong = append $wrong "redis.external.addresses: name some of the cluster's nodes, as host:port" -}}{{- end -}}
{{- if and .usernameKey (not .existingSecret) -}}{{- $wrong = append $wrong "redis.external.existingSecret: name the secret that has redis.external.usernameKey" -}}{{- end -}}
{{- if and .tls.caSecret (not .tls.enabled) -}}{{- $wrong = append $wrong "redis.external.tls.enabled: must be true, since redis.external.tls.caSecret is set" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.s3.originalsBucket .Values.s3.bucket -}}{{- $wrong = append $wrong "s3.originalsBucket: must not be s3.bucket, whose objects anyone may read" -}}{{- end -}}
{{- with .Values.s3.external -}}
{{- if .enabled -}}
{{- if and .publicRead (not .createBucket) -}}{{- $wrong = append $wrong "s3.external.publicRead: needs s3.external.createBucket; the policy of a bucket that is there already is its owner's" -}}{{- end -}}
{{- if and .endpoint (not (regexMatch "^https?://[^/]+/?$" .endpoint)) -}}{{- $wrong = append $wrong (printf "s3.external.endpoint: %q is not http:// or https:// and a host" .endpoint) -}}{{- end -}}
{{- if and .caSecret (hasPrefix "http://" .endpoint) -}}{{- $wrong = append $wrong "s3.external.endpoint: must begin with https://, since s3.external.caSecret is set" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $wrong -}}
{{- $kafka := include "vitrine.kafka" . | fromJson -}}
{{- if gt (int $kafka.minInsyncReplicas) (int $kafka.replication) -}}
{{- $wrong = append $wrong (printf "kafka.topics.minInsyncReplicas: %d is more than kafka.topics.replication (%d)" (int $kafka.minInsyncReplicas) (int $kafka.replication)) -}}
{{- end -}}
{{- range $way := list "dev" "operator" -}}
{{- $v := get $.Values.kafka $way -}}
{{- if and $v.enabled (gt (int $kafka.replication) (int $v.replicas)) -}}
{{- $wrong = append $wrong (printf "kafka.topics.replication: %d is more than kafka.%s.replicas (%d)" (int $kafka.replication) $way (int $v.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n  %s" (join "\n  " $wrong)) -}}
{{- end -}}
{{- end -}}

{{/*
One key of a generated development secret, base64: (dict "root" $ "name" "..." "key" "..." "given" "" "length" 32). It is the given
value; or the value of the secret in the cluster, so that upgrades keep it; or a new random value. `helm template` does not read the
cluster, so it generates a new value each time.
*/}}
{{- define "vitrine.dev.secretValue" -}}
{{- if .given -}}
{{- .given | b64enc -}}
{{- else -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .name | default dict -}}
{{- dig "data" .key "" $old | default (randAlphaNum 32 | b64enc) -}}
{{- end -}}
{{- end -}}

{{/*
The annotation of objects that hold data and outlive the release, as its volumes do: `helm uninstall` keeps them, and an installation
under the same name uses them again.
*/}}
{{- define "vitrine.keep" -}}
helm.sh/resource-policy: keep
{{- end -}}

{{/*
The annotation that restarts pods when a given password of a dev server changes: (dict "root" $ "of" (list "postgres" "redis" "s3")), as
YAML, or nothing. Generated passwords never change, and are not known when the chart is rendered without the cluster.
*/}}
{{- define "vitrine.dev.checksum" -}}
{{- $given := dict -}}
{{- range .of -}}
{{- $dev := (get $.root.Values .).dev -}}
{{- if and $dev.enabled $dev.password (not $dev.existingSecret) -}}{{- $_ := set $given . $dev.password -}}{{- end -}}
{{- end -}}
{{- if $given -}}
checksum/passwords: {{ $given | toJson | sha256sum }}
{{- end -}}
{{- end -}}

{{/*
Fields of a dev server's pod: (dict "root" $ "component" "redis" "values" .Values.redis.dev "uid" 999).
*/}}
{{- define "vitrine.dev.pod" -}}
automountServiceAccountToken: false
# A Service named "kafka" would add KAFKA_PORT to the environment, and Kafka's container image reads that as a setting.
enableServiceLinks: false
{{- with include "vitrine.imagePullSecrets" .root }}
{{ . }}
{{- end }}
securityContext:
  {{- include "vitrine.podSecurityContext" . | nindent 2 }}
{{- with include "vitrine.scheduling" . | trim }}
{{ . }}
{{- end }}
{{- end -}}

{{/*
The volume claim of a dev server: (dict "root" $ "component" "redis" "values" .Values.redis.dev). Its labels never change, because claim
templates are immutable.
*/}}
{{- define "vitrine.dev.claim" -}}
- metadata:
    name: data
    labels:
      {{- include "vitrine.selectorLabels" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .values.storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources:
      requests:
        storage: {{ .values.storage }}
{{- end -}}
