;; A policy of contract version 0.1.0, written by hand, that looks at most of what the contract shows and
;; says what it saw. It never changes: as long as version 0.1.0 is served, it must load, and give the
;; verdict that stands in `published.rs` beside it. Nothing here was generated, so a mistake in the
;; bindings of host and SDK cannot hide in it.
;;
;; It accepts a template without transactions and rejects every other one, with 16 things that it read.
;; The offsets below are those of the canonical ABI for the records as they stand in `wit/policy-0.1.0`.
(component
  (import "reservegrid:policy/types@0.1.0" (instance $types
    (type $value' (variant (case "boolean" bool) (case "unsigned" u64) (case "signed" s64) (case "text" string)))
    (export "context-value" (type $value (eq $value')))
    (type $rejection' (record (field "code" string) (field "detail" string)
      (field "context" (list (tuple string $value)))))
    (export "rejection" (type $rejection (eq $rejection')))
    (type $verdict' (variant (case "accept") (case "reject" $rejection)))
    (export "verdict" (type $verdict (eq $verdict')))
    (type $code' (record (field "code" string) (field "meaning" string)))
    (export "code-info" (type $code (eq $code')))
    (type $metadata' (record (field "name" string) (field "version" string) (field "summary" string)
      (field "codes" (list $code)) (field "settings-schema" string)))
    (export "policy-metadata" (type $metadata (eq $metadata')))
    (type $fault' (record (field "path" string) (field "problem" string)))
    (export "settings-fault" (type $fault (eq $fault')))))
  (alias export $types "verdict" (type $verdict))
  (alias export $types "policy-metadata" (type $metadata))
  (alias export $types "settings-fault" (type $fault))

  (import "reservegrid:policy/template@0.1.0" (instance $template
    (type $provenance' (enum "node" "declared"))
    (export "provenance" (type $provenance (eq $provenance')))
    (type $summary' (record
      (field "height" u32) (field "version" u32) (field "previous-block-hash" (list u8)) (field "bits" u32)
      (field "min-time" u32) (field "current-time" u32) (field "transaction-count" u32)
      (field "total-fees" u64) (field "total-weight" u64) (field "total-sigops" u64)
      (field "coinbase-value" u64) (field "subsidy" u64) (field "provenance" $provenance)))
    (export "template-summary" (type $summary (eq $summary')))
    (type $output' (record (field "value" u64) (field "script" (list u8)) (field "address" (option string))))
    (export "coinbase-output" (type $output (eq $output')))
    (type $coinbase' (record
      (field "version" u32) (field "script" (list u8)) (field "height" (option u32)) (field "sequence" u32)
      (field "lock-time" u32) (field "outputs" (list $output)) (field "weight" u32) (field "sigops" u32)))
    (export "coinbase-transaction" (type $coinbase (eq $coinbase')))
    (type $kind' (enum "target" "coinbase-value" "merkle-path" "witness-commitment-missing"
      "witness-commitment" "transaction-count" "txid" "wtxid" "weight" "sigops" "fee"
      "duplicate-transaction" "double-spend" "transaction-order" "transaction-not-final"))
    (export "discrepancy-kind" (type $kind (eq $kind')))
    (type $discrepancy' (record (field "kind" $kind) (field "transaction" (option u32))
      (field "declared" string) (field "derived" string)))
    (export "discrepancy" (type $discrepancy (eq $discrepancy')))
    (export "summary" (func (result $summary)))
    (export "coinbase" (func (result $coinbase)))
    (export "discrepancies" (func (result (list $discrepancy))))
    (export "fees" (func (param "start" u32) (param "count" u32) (result (list u64))))))

  (import "reservegrid:policy/context@0.1.0" (instance $context
    (type $tip' (record (field "hash" (list u8)) (field "height" u32) (field "next-bits" (option u32))))
    (export "chain-tip" (type $tip (eq $tip')))
    (type $mempool' (record
      (field "transaction-count" u64) (field "total-vsize" u64) (field "total-fees" u64)))
    (export "mempool-state" (type $mempool (eq $mempool')))
    (type $rates' (record
      (field "p10" u64) (field "p25" u64) (field "p50" u64) (field "p75" u64) (field "p90" u64)))
    (export "fee-rate-percentiles" (type $rates (eq $rates')))
    (type $snapshot' (record (field "taken-at" u64) (field "template-age-ms" u64)
      (field "tip" (option $tip)) (field "mempool" (option $mempool)) (field "fee-rates" (option $rates))
      (field "best-template-value" (option u64)) (field "unknown-transactions" (option u32))))
    (export "context-snapshot" (type $snapshot (eq $snapshot')))
    (export "snapshot" (func (result $snapshot)))))

  (import "reservegrid:policy/log@0.1.0" (instance $log (export "debug" (func (param "message" string)))))

  ;; Memory on its own, because the host's functions need it before the policy can be made.
  (core module $Heap
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    ;; Never moves or frees anything: an instance lives for one call.
    (func (export "realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $new)))
      (local.get $at)))
  (core instance $heap (instantiate $Heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $summary (canon lower (func $template "summary") (memory $memory) (realloc $realloc)))
  (core func $coinbase (canon lower (func $template "coinbase") (memory $memory) (realloc $realloc)))
  (core func $discrepancies (canon lower (func $template "discrepancies") (memory $memory) (realloc $realloc)))
  (core func $fees (canon lower (func $template "fees") (memory $memory) (realloc $realloc)))
  (core func $snapshot (canon lower (func $context "snapshot") (memory $memory) (realloc $realloc)))
  (core func $debug (canon lower (func $log "debug") (memory $memory)))

  (core module $Policy
    (import "heap" "memory" (memory 2))
    (import "host" "summary" (func $summary (param i32)))
    (import "host" "coinbase" (func $coinbase (param i32)))
    (import "host" "discrepancies" (func $discrepancies (param i32)))
    (import "host" "fees" (func $fees (param i32 i32 i32)))
    (import "host" "snapshot" (func $snapshot (param i32)))
    (import "host" "debug" (func $debug (param i32 i32)))

    ;; 0: "ok" and "accept", which are zeros
    (data (i32.const 32) "published")
    (data (i32.const 48) "0.1.0")
    (data (i32.const 64) "Says what it was shown.")
    (data (i32.const 96) "shown")
    (data (i32.const 112) "{\"type\":\"object\"}")
    (data (i32.const 144) "What the contract shows of a template.")
    (data (i32.const 192) "none")
    ;; 256: metadata: name, version, summary, codes, settings schema; 320: the one code
    (data (i32.const 256) "\20\00\00\00\09\00\00\00\30\00\00\00\05\00\00\00\40\00\00\00\17\00\00\00\40\01\00\00\01\00\00\00\70\00\00\00\11\00\00\00")
    (data (i32.const 320) "\60\00\00\00\05\00\00\00\90\00\00\00\26\00\00\00")
    ;; 384: a verdict: reject, code, detail, context (4096, its length is known at the end)
    (data (i32.const 384) "\01\00\00\00\60\00\00\00\05\00\00\00\90\00\00\00\26\00\00\00\00\10\00\00\00\00\00\00")
    ;; 512: names of context entries, 24 bytes apart
    (data (i32.const 512) "height")
    (data (i32.const 536) "sum_of_fees")
    (data (i32.const 560) "subsidy_less_value")
    (data (i32.const 584) "coinbase_pays")
    (data (i32.const 608) "first_address")
    (data (i32.const 632) "discrepancies")
    (data (i32.const 656) "first_kind")
    (data (i32.const 680) "first_declared")
    (data (i32.const 704) "from_node")
    (data (i32.const 728) "taken_at")
    (data (i32.const 752) "tip_height")
    (data (i32.const 776) "next_bits")
    (data (i32.const 800) "mempool_vsize")
    (data (i32.const 824) "fee_rate_p50")
    (data (i32.const 848) "best_template_value")
    (data (i32.const 872) "unknown_transactions")
    ;; Where the host puts records: 1024 summary, 1152 coinbase, 1216 discrepancies, 1232 fees, 1280 snapshot

    (func (export "metadata") (result i32) (i32.const 256))
    (func (export "validate-settings") (param i32 i32) (result i32) (i32.const 0))

    ;; Adds one entry: where its name is, how long that is, which kind of value, and the value. A text is
    ;; its address, and its length in the upper half.
    (func $entry (param $name i32) (param $length i32) (param $kind i32) (param $value i64)
      (local $at i32)
      (local.set $at (i32.add (i32.const 4096) (i32.mul (i32.load (i32.const 408)) (i32.const 24))))
      (i32.store (local.get $at) (local.get $name))
      (i32.store offset=4 (local.get $at) (local.get $length))
      (i32.store8 offset=8 (local.get $at) (local.get $kind))
      (i64.store offset=16 (local.get $at) (local.get $value))
      (i32.store (i32.const 408) (i32.add (i32.load (i32.const 408)) (i32.const 1))))

    ;; A text as a value: the address and length that are stored at `$at`, or "none".
    (func $text (param $is i32) (param $at i32) (result i64)
      (if (result i64) (local.get $is)
        (then (i64.load (local.get $at)))
        (else (i64.const 0x4_0000_00c0))))

    ;; An optional number, or zero.
    (func $number (param $is i32) (param $value i64) (result i64)
      (select (local.get $value) (i64.const 0) (local.get $is)))

    ;; The sum of `$count` numbers of 64 bits that are `$step` bytes apart.
    (func $sum (param $at i32) (param $count i32) (param $step i32) (result i64)
      (local $sum i64)
      (block $done
        (loop $next
          (br_if $done (i32.eqz (local.get $count)))
          (local.set $sum (i64.add (local.get $sum) (i64.load (local.get $at))))
          (local.set $at (i32.add (local.get $at) (local.get $step)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next)))
      (local.get $sum))

    (func (export "evaluate") (param i32 i32) (result i32)
      (local $outputs i32) (local $found i32)
      (call $debug (i32.const 64) (i32.const 23))
      (call $summary (i32.const 1024))
      (if (i32.eqz (i32.load (i32.const 1052))) (then (return (i32.const 0))))
      (call $entry (i32.const 512) (i32.const 6) (i32.const 1) (i64.load32_u (i32.const 1024)))
      (call $fees (i32.const 0) (i32.load (i32.const 1052)) (i32.const 1232))
      (call $entry (i32.const 536) (i32.const 11) (i32.const 1)
        (call $sum (i32.load (i32.const 1232)) (i32.load (i32.const 1236)) (i32.const 8)))
      ;; subsidy less coinbase value
      (call $entry (i32.const 560) (i32.const 18) (i32.const 2)
        (i64.sub (i64.load (i32.const 1088)) (i64.load (i32.const 1080))))

      (call $coinbase (i32.const 1152))
      (local.set $outputs (i32.load (i32.const 1180)))
      (call $entry (i32.const 584) (i32.const 13) (i32.const 1)
        (call $sum (local.get $outputs) (i32.load (i32.const 1184)) (i32.const 32)))
      (call $entry (i32.const 608) (i32.const 13) (i32.const 3)
        (call $text (i32.load8_u offset=16 (local.get $outputs)) (i32.add (local.get $outputs) (i32.const 20))))

      (call $discrepancies (i32.const 1216))
      (local.set $found (i32.load (i32.const 1216)))
      (call $entry (i32.const 632) (i32.const 13) (i32.const 1) (i64.load32_u (i32.const 1220)))
      (call $entry (i32.const 656) (i32.const 10) (i32.const 1)
        (call $number (i32.load (i32.const 1220)) (i64.load8_u (local.get $found))))
      (call $entry (i32.const 680) (i32.const 14) (i32.const 3)
        (call $text (i32.load (i32.const 1220)) (i32.add (local.get $found) (i32.const 12))))

      (call $entry (i32.const 704) (i32.const 9) (i32.const 0)
        (i64.extend_i32_u (i32.eqz (i32.load8_u (i32.const 1096)))))

      (call $snapshot (i32.const 1280))
      (call $entry (i32.const 728) (i32.const 8) (i32.const 1) (i64.load (i32.const 1280)))
      (call $entry (i32.const 752) (i32.const 10) (i32.const 1)
        (call $number (i32.load8_u (i32.const 1296)) (i64.load32_u (i32.const 1308))))
      (call $entry (i32.const 776) (i32.const 9) (i32.const 1)
        (call $number (i32.and (i32.load8_u (i32.const 1296)) (i32.load8_u (i32.const 1312)))
          (i64.load32_u (i32.const 1316))))
      (call $entry (i32.const 800) (i32.const 13) (i32.const 1)
        (call $number (i32.load8_u (i32.const 1320)) (i64.load (i32.const 1336))))
      (call $entry (i32.const 824) (i32.const 12) (i32.const 1)
        (call $number (i32.load8_u (i32.const 1352)) (i64.load (i32.const 1376))))
      (call $entry (i32.const 848) (i32.const 19) (i32.const 1)
        (call $number (i32.load8_u (i32.const 1400)) (i64.load (i32.const 1408))))
      (call $entry (i32.const 872) (i32.const 20) (i32.const 1)
        (call $number (i32.load8_u (i32.const 1416)) (i64.load32_u (i32.const 1420))))
      (i32.const 384)))
  (core instance $policy (instantiate $Policy
    (with "heap" (instance $heap))
    (with "host" (instance
      (export "summary" (func $summary)) (export "coinbase" (func $coinbase))
      (export "discrepancies" (func $discrepancies)) (export "fees" (func $fees))
      (export "snapshot" (func $snapshot)) (export "debug" (func $debug))))))

  (func (export "metadata") (result $metadata) (canon lift (core func $policy "metadata") (memory $memory)))
  (func (export "validate-settings") (param "settings" string) (result (result (error (list $fault))))
    (canon lift (core func $policy "validate-settings") (memory $memory) (realloc $realloc)))
  (func (export "evaluate") (param "settings" string) (result $verdict)
    (canon lift (core func $policy "evaluate") (memory $memory) (realloc $realloc))))
