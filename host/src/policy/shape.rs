//! What a module may be made of, looked at before it is compiled.
//!
//! Compiling has no fuel and no deadline, and it cannot be cut off: a component of a few hundred bytes
//! can name ten thousand million instances, and 10,000 loops in each other (40 kB) keep the compiler busy
//! for more than a minute. So what makes compiling slow is counted first, in one pass that keeps nothing.
//! The same module gets the same answer on every machine, which a deadline would not give.

use wasmparser::{BlockType, ComponentInstance, FunctionBody, Instance, Operator, Parser, Payload};

/// Modules and components in one file, nested ones too.
const MAX_PARTS: u32 = 256;
/// Core instances that a file names. What it may have in all is for the engine to count.
const MAX_INSTANCES: u32 = 256;
/// Instances of nested components that a file names. Components multiply: with 16 there are never more
/// than 3^(16/3), about 350, instances in all.
const MAX_COMPONENT_INSTANCES: u32 = 16;
/// Functions in all core modules together. A Python interpreter has about 15,000.
const MAX_FUNCTIONS: u32 = 40_000;
/// Code of all functions, bytes. A Python interpreter has about 6 MB.
const MAX_CODE_BYTES: u32 = 16 << 20;
/// Data segments of all core modules together. Tools that snapshot a started program make thousands.
const MAX_DATA_SEGMENTS: u32 = 10_000;
/// Code of one function, bytes. The main loop of an interpreter has about 200 kB.
const MAX_FUNCTION_BYTES: usize = 512 * 1024;
/// Loops inside each other: the compiler's time grows with their square.
const MAX_LOOP_DEPTH: usize = 128;
/// Targets of all jump tables of one function.
const MAX_JUMP_TARGETS: u32 = 65_536;
/// Parameters and results of a function, or of a block in it.
const MAX_SIGNATURE: usize = 64;
/// Blocks of a function that take values, or give more than one. Compilers make few or none of them.
const MAX_VALUE_BLOCKS: u32 = 1000;
/// Local variables of a function.
const MAX_LOCALS: u32 = 8192;

/// Looks at a whole file. The error says what there is too much of; a file that cannot be parsed is
/// left to the compiler, which says so better.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut found = Counts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(payload) => found.add(&payload)?,
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    parts: u32,
    instances: u32,
    component_instances: u32,
    functions: u32,
    code_bytes: u32,
    data_segments: u32,
}

impl Counts {
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), String> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                count(&mut self.parts, 1, MAX_PARTS, "modules and components")
            }
            Payload::InstanceSection(section) => {
                let made = section.clone().into_iter().flatten();
                let made = made.filter(|instance| matches!(instance, Instance::Instantiate { .. })).count();
                count(&mut self.instances, made, MAX_INSTANCES, "core instances")
            }
            Payload::ComponentInstanceSection(section) => {
                let made = section.clone().into_iter().flatten();
                let made =
                    made.filter(|instance| matches!(instance, ComponentInstance::Instantiate { .. })).count();
                let words = "instances of nested components";
                count(&mut self.component_instances, made, MAX_COMPONENT_INSTANCES, words)
            }
            Payload::TypeSection(section) => {
                let types = section.clone().into_iter_err_on_gc_types().flatten();
                let longest = types.map(|ty| ty.params().len().max(ty.results().len())).max();
                at_most(longest.unwrap_or(0), MAX_SIGNATURE, "parameters or results of a function")
            }
            Payload::DataSection(section) => {
                count(&mut self.data_segments, section.count() as usize, MAX_DATA_SEGMENTS, "data segments")
            }
            Payload::CodeSectionEntry(body) => {
                count(&mut self.code_bytes, body.as_bytes().len(), MAX_CODE_BYTES, "bytes of code")?;
                count(&mut self.functions, 1, MAX_FUNCTIONS, "functions")?;
                function(body)
            }
            _ => Ok(()),
        }
    }
}

/// One function. What does not parse ends the look at it: the compiler refuses it.
fn function(body: &FunctionBody<'_>) -> Result<(), String> {
    at_most(body.as_bytes().len(), MAX_FUNCTION_BYTES, "bytes in one function")?;
    let locals = body.get_locals_reader().into_iter().flatten().flatten();
    let locals = locals.fold(0_u32, |sum, (many, _)| sum.saturating_add(many));
    at_most(locals as usize, MAX_LOCALS as usize, "local variables in one function")?;

    // One entry for each block that is open: whether it is a loop.
    let (mut open, mut loops, mut targets, mut value_blocks) = (Vec::new(), 0_usize, 0, 0);
    let Ok(mut operators) = body.get_operators_reader() else { return Ok(()) };
    while let Ok(operator) = operators.read() {
        if let Operator::Loop { blockty } | Operator::Block { blockty } | Operator::If { blockty } = operator
            && matches!(blockty, BlockType::FuncType(_))
        {
            let words = "blocks that take or give several values";
            count(&mut value_blocks, 1, MAX_VALUE_BLOCKS, words)?;
        }
        match operator {
            Operator::Loop { .. } => {
                open.push(true);
                loops += 1;
                at_most(loops, MAX_LOOP_DEPTH, "loops inside each other")?;
            }
            Operator::Block { .. } | Operator::If { .. } => open.push(false),
            Operator::End => loops -= usize::from(open.pop() == Some(true)),
            Operator::BrTable { targets: table } => {
                let more = table.len() as usize;
                count(&mut targets, more, MAX_JUMP_TARGETS, "jump targets in one function")?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn count(sum: &mut u32, more: usize, max: u32, what: &str) -> Result<(), String> {
    *sum = sum.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
    at_most(*sum as usize, max as usize, what)
}

fn at_most(found: usize, max: usize, what: &str) -> Result<(), String> {
    if found > max {
        return Err(format!("it has {found} {what} or more, and at most {max} can be compiled in good time"));
    }
    Ok(())
}
