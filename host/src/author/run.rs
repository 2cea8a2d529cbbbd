//! One verdict on a recorded template: `reservegrid policy run`.

use super::{
    InputFault,
    engine::{Engine, judge},
    read_settings,
};
use crate::{policy::Judgement, record, template::facts::assemble};
use std::{path::Path, sync::Arc};

/// Judges the template in a file (a record of one, or a recording of a gateway) with one policy.
///
/// # Errors
/// Where module, settings or template cannot be used.
pub fn run(module: &Path, template: &Path, settings: Option<&Path>) -> Result<Judgement, InputFault> {
    let recorded = record::read_template(template).map_err(|error| InputFault(error.to_string()))?;
    let assembled = assemble(&recorded.declared)
        .map_err(|error| InputFault(format!("{}: {error}", template.display())))?;
    let (set, _) = Engine::start()?.load_one(module, read_settings(settings)?)?;
    Ok(judge(&set, &Arc::new(assembled), &recorded.context))
}
