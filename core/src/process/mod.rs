//! What every program has around the engine: signals, logs, and a place for work that blocks.

mod blocking;
mod signals;
mod telemetry;

pub use blocking::blocking;
pub use signals::Signals;
pub use telemetry::{Verbosity, start_logging};
