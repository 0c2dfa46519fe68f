//! The progress bar of long transfers: on a terminal only, on stderr.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use walrust_core::restore::Progress;

use super::may_style;
use super::text;

/// A bar with rate and remaining time, or nothing where nobody would see it.
#[derive(Clone, Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar if stdout and stderr are a terminal that takes cursor movements and `wanted` (R10).
    pub(crate) fn new(wanted: bool) -> Self {
        let seen = io::stdout().is_terminal() && io::stderr().is_terminal() && may_style();
        if !(wanted && seen) {
            return Self(ProgressBar::hidden());
        }
        // Five times a second: enough to see it move, and cheap over a slow line.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(counting());
        Self(bar)
    }

    /// Begins a phase of `total` bytes, if that is known.
    pub(crate) fn phase(&self, name: &'static str, total: Option<u64>) {
        self.0.set_message(name);
        self.0.set_position(0);
        match total {
            Some(total) => {
                self.0.set_length(total);
                self.0.set_style(measured());
            }
            None => {
                self.0.unset_length();
                self.0.set_style(counting());
            }
        }
        self.0.reset_elapsed();
        self.0.reset_eta();
    }

    /// That `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn planned(&self, snapshot_bytes: u64, _: u64, segment_bytes: u64) {
        self.phase(
            "Downloading",
            Some(snapshot_bytes.saturating_add(segment_bytes)),
        );
    }

    fn downloaded(&self, bytes: u64) {
        self.advance(bytes);
    }

    fn checking(&self) {
        self.phase("Verifying", None);
    }
}

fn measured() -> ProgressStyle {
    styled("  {msg} [{bar:30}] {done} of {all}, {rate}, {remaining} left")
}

fn counting() -> ProgressStyle {
    styled("  {msg} {done}, {rate}")
}

fn styled(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("=> ")
        .with_key(
            "done",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&text::size(state.pos()));
            },
        )
        .with_key(
            "all",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&text::size(state.len().unwrap_or(0)));
            },
        )
        .with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{}/s", text::size(state.per_sec() as u64));
            },
        )
        .with_key(
            "remaining",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&remaining(state.eta()));
            },
        )
}

/// Whole seconds, then minutes, then hours: what is left is a guess.
fn remaining(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [
            "  {msg} [{bar:30}] {done} of {all}, {rate}, {remaining} left",
            "  {msg} {done}, {rate}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
        assert_eq!(remaining(Duration::from_secs(59)), "59s");
        assert_eq!(remaining(Duration::from_secs(61)), "1m01s");
        assert_eq!(remaining(Duration::from_secs(7_260)), "2h01m");
    }
}
