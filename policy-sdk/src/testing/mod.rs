//! Unit tests of a policy without wasm: templates made of plain values, and the tables of its README.

mod readme;
mod template;

pub use readme::{assert_readme, codes_table, settings_table};
pub use template::{TestTemplate, TestTransaction};

use crate::{Context, Policy, Settings, SettingsFault, Template, Verdict};

/// Judges a template with a policy, as the gateway would.
///
/// # Panics
/// When the policy does not accept the settings, the message lists why; and when it answers a code that
/// is not one of its [`Policy::CODES`], which the gateway would refuse.
pub fn judge<P: Policy>(settings: &str, template: &TestTemplate, context: &Context) -> Verdict {
    let policy: P = configure(settings);
    let verdict = policy.evaluate(&Template::new(template, template.summary()), context);
    if let Err(rejection) = &verdict {
        let listed = P::CODES.iter().any(|(code, _)| *code == rejection.code);
        assert!(listed, "{} is not one of the codes of {}", rejection.code, P::NAME);
    }
    verdict
}

/// A policy with these settings.
///
/// # Panics
/// When the policy does not accept them, the message lists why.
pub fn configure<P: Policy>(settings: &str) -> P {
    match Settings::read(settings, P::configure) {
        Ok(policy) => policy,
        Err(faults) => panic!("the settings have faults: {faults:#?}"),
    }
}

/// What a policy has against settings; empty when nothing.
pub fn settings_faults<P: Policy>(settings: &str) -> Vec<SettingsFault> {
    Settings::read(settings, P::configure).err().unwrap_or_default()
}

/// The JSON Schema of a policy's settings.
pub fn settings_schema<P: Policy>() -> String {
    Settings::schema(|settings| drop(P::configure(settings))).document()
}
