//! The macro that declares a section of the configuration: its keys, their types, defaults and meaning,
//! each written once. The struct, the reading of it and the list for the documentation follow from it.
//!
//! ```text
//! section! {
//!     /// What the gate waits for.
//!     pub Gate {
//!         /// How long a verdict may take.
//!         verdict_timeout: Duration = default("50ms"), within("1ms", "10s") => at_once;
//!     }
//! }
//! ```
//!
//! The word after `=` is a method of the reader (`required`, `default`, `optional`, `secret`,
//! `optional_secret`); what follows the comma is a check of the value. `=> at_once` and `=> for_new` mark
//! keys that a reload takes over; all others wait for the next start.

/// What is known about one key, for the documentation and for suggestions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The name in its section.
    pub name: &'static str,
    /// The name of its Rust type.
    pub kind: &'static str,
    /// Whether it has to be there.
    pub presence: Presence,
    /// When another value takes effect.
    pub reload: Reload,
    /// What it means.
    pub doc: &'static str,
}

/// When another value of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// With the reload.
    AtOnce,
    /// With the reload, for connections and channels that begin after it.
    ForNew,
    /// When the gateway is started again.
    NextStart,
}

/// The words of the macro, and those for people.
impl Reload {
    pub(super) const fn at_once() -> Self {
        Self::AtOnce
    }
    pub(super) const fn for_new() -> Self {
        Self::ForNew
    }

    /// As the documentation says it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::ForNew => "for new ones",
            Self::NextStart => "next start",
        }
    }
}

/// Whether a key has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has to be given.
    Required,
    /// It may be left out, which means what the documentation says.
    Optional,
    /// It has a value when it is left out.
    Default(&'static str),
    /// A secret that has to be given: in the environment, or in the file named by the key with `_file`.
    Secret,
    /// A secret that may be left out.
    OptionalSecret,
}

/// The words of the macro; the reader has a method of the same name for each.
impl Presence {
    pub(super) const fn required() -> Self {
        Self::Required
    }
    pub(super) const fn optional() -> Self {
        Self::Optional
    }
    pub(super) const fn default(text: &'static str) -> Self {
        Self::Default(text)
    }
    pub(super) const fn secret(_what_to_do: &'static str) -> Self {
        Self::Secret
    }
    pub(super) const fn optional_secret() -> Self {
        Self::OptionalSecret
    }
}

/// Declares sections; see the module.
macro_rules! section {
    ($(
        $( #[doc = $about:literal] )+
        $vis:vis $name:ident {
            $( $( #[doc = $doc:literal] )+ $key:ident: $kind:ty = $rule:ident($( $arg:literal )?) $( , $check:expr )? $( => $reload:ident )?; )+
        }
    )+) => { $(
        $( #[doc = $about] )+
        #[derive(Clone, Debug)]
        $vis struct $name { $( $( #[doc = $doc] )+ pub $key: $kind, )+ }

        impl $name {
            /// The keys of the section, in the order of the documentation.
            $vis const KEYS: &'static [KeyInfo] = &[ $( KeyInfo {
                name: stringify!($key),
                kind: stringify!($kind),
                presence: Presence::$rule($( $arg )?),
                reload: {
                    let when = Reload::NextStart;
                    $( let _ = when; let when = Reload::$reload(); )?
                    when
                },
                doc: concat!($( $doc ),+),
            }, )+ ];

            /// The keys that have another value in `other`.
            #[allow(dead_code, reason = "some sections are only read into others")]
            pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if self.$key != other.$key { names.push(stringify!($key)); } )+
                names
            }

            /// Reads every key, so that every fault is found; `None` when there was one.
            pub(super) fn read(reader: &mut Reader, section: &str) -> Option<Self> {
                $(
                    let $key: Option<$kind> = reader.$rule(section, stringify!($key) $( , $arg )?);
                    $( let $key = reader.checked(section, stringify!($key), $key, $check); )?
                )+
                Some(Self { $( $key: $key?, )+ })
            }
        }
    )+ };
}
pub(super) use section;
