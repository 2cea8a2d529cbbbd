//! Hostile policies, written by hand: components in text form, with every part of one open to a test.
//!
//! A [`Guest`] that nobody changed is a well-behaved policy: it loads, and it accepts every template. A
//! test replaces what it is about: the body of an export, the heap, what lies in memory. Nothing is
//! imported but the contract's types and the functions that a body names (`$fees`, `$debug`, ...), so
//! that functions which join the contract later change nothing here.

/// Where the texts and records of a guest lie. All below the heap, which begins at 65,536.
const METADATA: u32 = 128;
const CODES: u32 = 192;
/// Zeros: as `result` it is "ok", as `verdict` it is "accept".
pub(crate) const ZEROS: u32 = 960;
/// A verdict that [`Guest::rejecting`] writes.
pub(crate) const VERDICT: u32 = 1024;
const CODE: u32 = 2048;
const DETAIL: u32 = 4096;
const ENTRIES: u32 = 16_384;
const NAMES: u32 = 32_768;

/// The contract's functions that a body may call: interface, name, component type, core type.
const FUNCTIONS: [(&str, &str, &str, &str); 5] = [
    ("log", "debug", r#"(param "message" string)"#, "(param i32 i32)"),
    (
        "template",
        "fees",
        r#"(param "start" u32) (param "count" u32) (result (list u64))"#,
        "(param i32 i32 i32)",
    ),
    (
        "template",
        "txids",
        r#"(param "start" u32) (param "count" u32) (result (list u8))"#,
        "(param i32 i32 i32)",
    ),
    (
        "template",
        "weights",
        r#"(param "start" u32) (param "count" u32) (result (list u32))"#,
        "(param i32 i32 i32)",
    ),
    ("template", "raw-transaction", r#"(param "index" u32) (result (list u8))"#, "(param i32 i32)"),
];

/// The parts of a component. Bodies are those of core functions with the contract's flat signatures.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Memory at the start, and at most, pages of 64 KiB.
    pub(crate) memory: String,
    /// `cabi_realloc`: `(param i32 i32 i32 i32) (result i32)`.
    pub(crate) realloc: String,
    /// `metadata`: `(result i32)`.
    pub(crate) metadata: String,
    /// `validate-settings`: `(param i32 i32) (result i32)`.
    pub(crate) validate: String,
    /// `evaluate`: `(param i32 i32) (result i32)`.
    pub(crate) evaluate: String,
    /// Runs after `evaluate`: `(param i32)`.
    pub(crate) post_return: String,
    /// More fields of the core module: functions, globals, data, a start function.
    pub(crate) fields: String,
    /// More of the component, before its core module: nested components, resources, instances.
    pub(crate) before: String,
    /// Core functions defined in `before` that the core module gets: name, as in `before`, core type.
    pub(crate) given: Vec<(&'static str, &'static str, &'static str)>,
    /// The policy's metadata: name, version, summary, codes, schema.
    pub(crate) words: [Vec<u8>; 4],
    /// The codes that it lists.
    pub(crate) codes: Vec<Vec<u8>>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            memory: "4".into(),
            realloc: "(global.get $next) (global.set $next (i32.and (i32.const -8) (i32.add (i32.const 7) \
                      (i32.add (global.get $next) (local.get 3)))))"
                .into(),
            metadata: format!("i32.const {METADATA}"),
            validate: format!("i32.const {ZEROS}"),
            evaluate: format!("i32.const {ZEROS}"),
            post_return: String::new(),
            fields: String::new(),
            before: String::new(),
            given: Vec::new(),
            words: [b"hostile".to_vec(), b"0.1.0".to_vec(), b"Bad.".to_vec(), b"{}".to_vec()],
            codes: vec![b"listed_code".to_vec()],
        }
    }
}

impl Guest {
    /// A guest with this body of `evaluate`.
    pub(crate) fn evaluating(body: &str) -> Self {
        Self { evaluate: body.into(), ..Self::default() }
    }

    /// A guest that rejects with this code, this detail and these context entries; an entry is a name
    /// and the 16 bytes of its value.
    pub(crate) fn rejecting(code: &[u8], detail: &[u8], entries: &[(&[u8], [u8; 16])]) -> Self {
        let mut guest = Self::evaluating(&format!("i32.const {VERDICT}"));
        guest.data(CODE, code).data(DETAIL, detail);
        let mut table = Vec::new();
        for (at, (name, value)) in (NAMES..).step_by(64).zip(entries) {
            guest.data(at, name);
            table.extend(words(&[at, length(name)]));
            table.extend(value);
        }
        let verdict = [1, CODE, length(code), DETAIL, length(detail), ENTRIES, length(entries)];
        guest.data(ENTRIES, &table).data(VERDICT, &words(&verdict));
        guest
    }

    /// Puts bytes into memory; what is put later wins.
    pub(crate) fn data(&mut self, at: u32, bytes: &[u8]) -> &mut Self {
        self.fields += &format!("(data (i32.const {at}) \"{}\")\n", escaped(bytes));
        self
    }

    /// The component as a file holds it.
    pub(crate) fn component(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn text(&self) -> String {
        let bodies = [&self.metadata, &self.validate, &self.evaluate, &self.post_return, &self.fields];
        let used = |name: &str| bodies.iter().any(|body| body.contains(&format!("(call ${name} ")));
        let functions: Vec<_> = FUNCTIONS.iter().filter(|(_, name, ..)| used(name)).collect();

        let (mut imports, mut lowered, mut given, mut core_imports) =
            (String::new(), String::new(), String::new(), String::new());
        for interface in ["template", "log"] {
            let mine = || functions.iter().filter(|function| function.0 == interface);
            if mine().next().is_none() {
                continue;
            }
            let exports: String =
                mine().map(|(_, name, ty, _)| format!("(export \"{name}\" (func {ty}))")).collect();
            imports += &format!(
                "(import \"reservegrid:policy/{interface}@0.1.0\" (instance ${interface} {exports}))\n"
            );
        }
        for (interface, name, _, core) in &functions {
            lowered += &format!(
                "(core func $lowered-{name} (canon lower (func ${interface} \"{name}\") (memory $memory) (realloc $realloc)))\n"
            );
            given += &format!("(export \"{name}\" (func $lowered-{name}))");
            core_imports += &format!("(import \"host\" \"{name}\" (func ${name} {core}))\n");
        }
        for (name, function, core) in &self.given {
            given += &format!("(export \"{name}\" (func {function}))");
            core_imports += &format!("(import \"host\" \"{name}\" (func ${name} {core}))\n");
        }
        let Self { memory, realloc, before, metadata, validate, evaluate, post_return, fields, .. } = self;
        let imported = memory; // the limits of an import must be those of what is given
        format!(
            r#"(component
{TYPES}
{imports}
(core module $Heap
  (memory (export "memory") {memory})
  (global $next (mut i32) (i32.const 65536))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
(core instance $heap (instantiate $Heap))
(alias core export $heap "memory" (core memory $memory))
(alias core export $heap "realloc" (core func $realloc))
{lowered}
{before}
(core module $Main
  (import "heap" "memory" (memory $memory {imported}))
{core_imports}
{description}
{fields}
  (func (export "metadata") (result i32) {metadata})
  (func (export "validate-settings") (param i32 i32) (result i32) {validate})
  (func (export "evaluate") (param i32 i32) (result i32) {evaluate})
  (func (export "post-return") (param i32) {post_return}))
(core instance $main (instantiate $Main
  (with "heap" (instance $heap)) (with "host" (instance {given}))))
{EXPORTS})"#,
            description = self.description(),
        )
    }

    /// The metadata record, its codes and its texts, as data segments.
    fn description(&self) -> String {
        let mut texts = Self { fields: String::new(), ..Self::default() };
        let mut at = 262_144 - 65_536; // the last of four pages; nobody else uses it
        let mut place = |bytes: &[u8]| {
            let address = at;
            if length(bytes) <= 60_500 {
                texts.data(address, bytes);
            }
            at += length(bytes);
            [address, length(bytes)]
        };
        let [name, version, summary, schema] = self.words.each_ref().map(|bytes| place(bytes));
        // All codes share the meaning "x": they are many in one test.
        let meaning = place(b"x");
        let codes: Vec<u8> =
            self.codes.iter().flat_map(|code| words(&[place(code), meaning].concat())).collect();
        let at_codes = if codes.len() < 700 { CODES } else { ENTRIES };
        let record = [name, version, summary, [at_codes, length(&self.codes)], schema].concat();
        texts.data(at_codes, &codes).data(METADATA, &words(&record));
        texts.fields
    }
}

/// 32-bit numbers as they lie in memory.
pub(crate) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The 16 bytes of a `context-value`: its discriminant, and what follows at offset 8.
pub(crate) fn value(discriminant: u8, payload: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = discriminant;
    bytes[8..].copy_from_slice(&payload.to_le_bytes());
    bytes
}

fn length<T>(slice: &[T]) -> u32 {
    u32::try_from(slice.len()).expect("it is short")
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// The contract's types, in the order of `types.wit`.
const TYPES: &str = r#"(import "reservegrid:policy/types@0.1.0" (instance $types
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
(alias export $types "settings-fault" (type $fault))"#;

const EXPORTS: &str = r#"(func (export "metadata") (result $metadata)
  (canon lift (core func $main "metadata") (memory $memory) (realloc $realloc)))
(func (export "validate-settings") (param "settings" string) (result (result (error (list $fault))))
  (canon lift (core func $main "validate-settings") (memory $memory) (realloc $realloc)))
(func (export "evaluate") (param "settings" string) (result $verdict)
  (canon lift (core func $main "evaluate") (memory $memory) (realloc $realloc)
    (post-return (core func $main "post-return"))))"#;
