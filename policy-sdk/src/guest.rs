//! Between the generated exports and the [`Policy`] trait.

use crate::{
    CoinbaseTransaction, Discrepancy, Policy, Settings, SettingsFault, Template, bindings,
    bindings::reservegrid::policy::{
        context, template,
        types::{CodeInfo, PolicyMetadata, Verdict},
    },
    template::Rows,
};
use std::marker::PhantomData;

/// The component that [`crate::export_policy!`] exports for a policy.
pub struct Exported<P>(PhantomData<P>);

impl<P: Policy> bindings::Guest for Exported<P> {
    fn metadata() -> PolicyMetadata {
        let codes =
            P::CODES.iter().map(|&(code, meaning)| CodeInfo { code: code.into(), meaning: meaning.into() });
        PolicyMetadata {
            name: P::NAME.into(),
            version: P::VERSION.into(),
            summary: P::SUMMARY.into(),
            codes: codes.collect(),
            settings_schema: Settings::schema(|settings| drop(P::configure(settings))).document(),
        }
    }

    fn validate_settings(settings: String) -> Result<(), Vec<SettingsFault>> {
        Settings::read(&settings, P::configure).map(drop)
    }

    fn evaluate(settings: String) -> Verdict {
        let Ok(policy) = Settings::read(&settings, P::configure) else {
            // The gateway never gets here: it loads no policy whose settings have faults. A trap is a
            // rejection.
            panic!("evaluate was called with settings that validate-settings refuses");
        };
        let template = Template::new(&Host, template::summary());
        match policy.evaluate(&template, &context::snapshot()) {
            Ok(()) => Verdict::Accept,
            Err(rejection) => Verdict::Reject(rejection),
        }
    }
}

/// The template as the gateway shows it.
struct Host;

impl Rows for Host {
    fn coinbase(&self) -> CoinbaseTransaction {
        template::coinbase()
    }
    fn discrepancies(&self) -> Vec<Discrepancy> {
        template::discrepancies()
    }
    fn fees(&self, start: u32, count: u32) -> Vec<u64> {
        template::fees(start, count)
    }
    fn weights(&self, start: u32, count: u32) -> Vec<u32> {
        template::weights(start, count)
    }
    fn sigops(&self, start: u32, count: u32) -> Vec<u32> {
        template::sigops(start, count)
    }
    fn traits(&self, start: u32, count: u32) -> Vec<u32> {
        template::traits(start, count)
    }
    fn txids(&self, start: u32, count: u32) -> Vec<u8> {
        template::txids(start, count)
    }
    fn known(&self, start: u32, count: u32) -> Vec<u8> {
        context::known(start, count)
    }
    fn raw_transaction(&self, index: u32) -> Vec<u8> {
        template::raw_transaction(index)
    }
}
