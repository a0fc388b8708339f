{{/*
What follows from the configuration and the values, as JSON. The same is computed by src/stac_watch/cluster/manifests/facts.py for
`stac-watch cluster manifests`, and a test compares what both lead to.
*/}}
{{- define "stac-watch.facts" -}}
{{- $v := .Values -}}
{{- $scheme := ternary "https" "http" (ne $v.webhook.tlsSecret "") -}}
{{- $engine := dict "kind" "argo" "webhook" (printf "%s://stac-eventsource-svc:@PORT@@ENDPOINT@" $scheme) -}}
{{- $needed := dict "ledger" "sqlite:///@STATE@/stac-watch.db" "engine" $engine "web" (dict "host" "0.0.0.0" "port" 8080) -}}
{{- $config := mergeOverwrite $needed (deepCopy (default dict $v.config)) -}}
{{- $engine = $config.engine -}}
{{- if not $config.sources }}{{ fail "config.sources is missing: the chart needs the configuration, at least config.sources and config.recipe.output" }}{{ end -}}
{{- if ne (default .Release.Namespace $engine.namespace) .Release.Namespace }}{{ fail (printf "config.engine.namespace is %s, and the release goes to %s" $engine.namespace .Release.Namespace) }}{{ end -}}
{{- if and $v.webhook.tlsSecret (not (hasPrefix "https://" $engine.webhook)) }}{{ fail "config.engine.webhook must be https://, because webhook.tlsSecret makes the EventSource speak TLS" }}{{ end -}}
{{- $output := default "var/outputs" (default dict $config.recipe).output -}}
{{- if and $v.ledger.existingSecret (not (contains "://" $output)) }}{{ fail "config.recipe.output must be s3://… with a ledger in PostgreSQL: outputs on the volumes of runs go with their Workflows" }}{{ end -}}
{{- if and (eq $v.runs.volume "scratch") (not (contains "://" $output)) }}{{ fail "config.recipe.output must be s3://… with runs.volume: scratch: a run has no volume then that an output could stay on" }}{{ end -}}
{{- $urls := list -}}{{- $hosts := list -}}{{- $networks := list -}}{{- $names := list -}}{{- $plain := true -}}
{{- range $config.sources -}}
{{- $names = append $names .name -}}
{{- $urls = append $urls .api -}}
{{- range (default (list (urlParse .api).hostname) .allowed_hosts) }}{{ $hosts = append $hosts . }}{{ end -}}
{{- with .auth }}{{ with .oidc }}{{ $urls = append $urls .token_url }}{{ end }}{{ end -}}
{{- end -}}
{{- with $config.register }}{{ $urls = append $urls .api }}{{ with .auth }}{{ with .oidc }}{{ $urls = append $urls .token_url }}{{ end }}{{ end }}{{ end -}}
{{- range (default list $config.sinks) }}{{ $urls = append $urls .url }}{{ end -}}
{{- $asked := list -}}{{- $ports := list "00080" "00443" -}}
{{- range $v.networkPolicy.ports }}{{ $ports = append $ports (printf "%05d" (int64 .)) }}{{ end -}}
{{- range $urls -}}
{{- $url := urlParse . -}}
{{- $asked = append $asked $url.hostname -}}
{{- with regexFind ":[0-9]+$" $url.host }}{{ $ports = append $ports (printf "%05d" (atoi (trimPrefix ":" .))) }}{{ end -}}
{{- end -}}
{{- range $hosts }}{{ if contains "/" . }}{{ $networks = append $networks . }}{{ else }}{{ $asked = append $asked . }}{{ end }}{{ end -}}
{{- $inside := false -}}
{{- range $asked }}{{ if or (regexMatch "^[0-9.]+$|:" .) (not (contains "." .)) (regexMatch "@INSIDE@" .) }}{{ $inside = true }}{{ end }}{{ end -}}
{{- $networks = concat $networks $v.networkPolicy.networks -}}
{{- if $inside }}{{ $networks = concat $networks (list @PRIVATE@) }}{{ end -}}
{{- $blocks := list -}}
{{- range (sortAlpha (uniq $networks)) -}}
{{- $holes := list -}}{{- $network := . -}}
{{- range (list @NEVER@) }}{{ if eq "true" (include "stac-watch.within" (list . $network)) }}{{ $holes = append $holes . }}{{ end }}{{ end -}}
{{- $block := dict "cidr" $network -}}
{{- if $holes }}{{ $_ := set $block "except" $holes }}{{ end -}}
{{- $blocks = append $blocks (dict "ipBlock" $block) -}}
{{- end -}}
{{- $numbers := list -}}
{{- range (sortAlpha (uniq $ports)) }}{{ $numbers = append $numbers (atoi (regexReplaceAll "^0+" . "")) }}{{ end -}}
{{- $runs := add (int64 (default @SLOTS@ (default dict $engine.limits).max_in_flight)) @BESIDE@ -}}
{{- $requests := default dict $v.runs.convert.requests -}}
{{- $cores := add 100 (include "stac-watch.scaled" (list (toString (default "0" $requests.cpu)) 1000)) -}}
{{- $memory := add 1 (include "stac-watch.gibibytes" (list (toString (default "0" $requests.memory)) 1)) -}}
{{- $bus := ternary 0 (int64 $v.eventBus.replicas) (ne $v.eventBus.existing "") -}}
{{- $claims := ternary 0 (mul 2 $runs) (eq $v.runs.volume "scratch") -}}
{{- $storage := add (mul $claims @VOLUME@) (include "stac-watch.gibibytes" (list $v.eventBus.size $bus)) -}}
{{- $hard := dict "persistentvolumeclaims" (toString (add $claims $bus)) "requests.cpu" (toString (add 2 (div (add (mul $runs $cores) 999) 1000))) "requests.memory" (printf "%dGi" (add 4 (mul $runs $memory))) "requests.storage" (printf "%dGi" $storage) -}}
{{- $files := mergeOverwrite (dict "@CONFIG@" (toYaml $config)) (deepCopy $v.configFiles) -}}
{{- $around := "" -}}
{{- if or $v.proxy.http $v.proxy.https }}{{ $around = join "," (concat (list @AROUND@) (compact (splitList "," $v.proxy.noProxy))) }}{{ end -}}
{{- $c := $v.storageClasses -}}
{{- toJson (dict
  "files" $files "digest" (sha256sum (toJson $files) | trunc 16)
  "sources" $names "hosts" (join "," (sortAlpha (uniq $hosts))) "parallelism" (toString $runs)
  "keep" (include "stac-watch.seconds" (toString (default "@KEEP@" $engine.keep)))
  "runnerImage" (include "stac-watch.image" (list . $v.images.runner)) "pollerImage" (include "stac-watch.image" (list . $v.images.poller))
  "ports" $numbers "blocks" $blocks "hard" (mergeOverwrite $hard (deepCopy $v.quota.hard))
  "bus" (default "@BUS@" $v.eventBus.existing) "instanceId" (default "" $engine.instance_id)
  "runsClass" (default $c.default $c.runs) "ledgerClass" (default $c.default $c.ledger)
  "busClass" (default $c.default $c.bus) "backupClass" (default $c.default $c.backup)
  "noProxy" $around "host" (ternary "\"::\"" "0.0.0.0" (eq $v.ipFamily "ipv6"))
) -}}
{{- end -}}

{{- define "stac-watch.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ . }}/{{ end }}{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* 90s, 15m, 6h, 3d as seconds */}}
{{- define "stac-watch.seconds" -}}
{{- $unit := index (dict "s" 1 "m" 60 "h" 3600 "d" 86400) (regexFind "[smhd]$" .) -}}
{{- int64 (round (mulf (float64 (regexFind "^[0-9.]+" .)) $unit) 0) -}}
{{- end -}}

{{/* a quantity of Kubernetes, scaled, as a whole number */}}
{{- define "stac-watch.scaled" -}}
{{- $text := index . 0 -}}
{{- $units := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- int64 (round (mulf (float64 (regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $text)) (index $units (regexFind "[A-Za-z]*$" $text)) (index . 1)) 0) -}}
{{- end -}}

{{/* so many times a quantity, in whole GiB and not less */}}
{{- define "stac-watch.gibibytes" -}}
{{- div (add (mul (index . 1) (include "stac-watch.scaled" (list (index . 0) 1) | int64)) 1073741823) 1073741824 -}}
{{- end -}}

{{/* whether a network lies within a larger one */}}
{{- define "stac-watch.within" -}}
{{- $inner := index . 0 -}}{{- $outer := index . 1 -}}
{{- if contains ":" $outer -}}
{{- and (eq $inner "fd00:ec2::254/128") (regexMatch "^(fc00::/7|fd00::/([89]|1[0-9]|20)|fd00:ec2::/(3[2-9]|[4-9][0-9]|10[0-9]|11[0-8]))$" $outer) -}}
{{- else if contains ":" $inner -}}
false
{{- else -}}
{{- $bits := atoi (last (splitList "/" $outer)) -}}
{{- $size := 1 -}}{{- range until (int (sub 32 $bits)) }}{{ $size = mul $size 2 }}{{ end -}}
{{- $one := div (include "stac-watch.number" $inner | int64) $size -}}{{- $other := div (include "stac-watch.number" $outer | int64) $size -}}
{{- and (lt $bits (atoi (last (splitList "/" $inner)))) (eq $one $other) -}}
{{- end -}}
{{- end -}}

{{/* an IPv4 address as a number */}}
{{- define "stac-watch.number" -}}
{{- $number := 0 -}}
{{- range (splitList "." (first (splitList "/" .))) }}{{ $number = add (mul $number 256) (atoi .) }}{{ end -}}
{{- $number -}}
{{- end -}}
