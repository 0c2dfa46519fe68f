//! `walrust list` (R116 to R120).

use walrust_core::ErrorKind;

use super::runtime;
use crate::args::ListArgs;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::listing::{print_description, print_list};
use crate::settings::Settings;
use crate::wire;

/// Lists the databases of a bucket, or the files of one.
pub(crate) fn run(args: &ListArgs, settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let store = settings.store()?;
    let runtime = runtime()?;
    if let Some(name) = &args.name {
        print_description(&runtime.block_on(wire::describe(&store, name))?, out);
        return Ok(());
    }
    let list = runtime.block_on(wire::list(&store))?;
    print_list(&list, out);
    Failed::told((!list.is_sound()).then_some(ErrorKind::Corrupt))
}
