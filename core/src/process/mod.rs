//! What every program has around the engine: signals and logs.

mod signals;
mod telemetry;

pub use signals::Signals;
pub use telemetry::{Verbosity, start_logging};
