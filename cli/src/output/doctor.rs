//! What `doctor` prints: one line a check, and what to change.

use walrust_core::doctor::{Check, Outcome, Report};

use super::Out;

/// The checks, as lines or JSON.
pub(crate) fn print_report(report: &Report, out: &mut Out) {
    out.json(report);
    let width = report
        .checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or_default();
    for check in &report.checks {
        print_check(check, width, out);
    }
    out.line("");
    let failed = report.failed().count();
    match failed {
        0 => out.line(format!("All {} checks passed.", report.checks.len())),
        _ => out.line(format!(
            "{failed} of {} checks failed.",
            report.checks.len()
        )),
    }
}

fn print_check(check: &Check, width: usize, out: &mut Out) {
    let word = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Note => "note",
        Outcome::Failed => "FAILED",
    };
    out.line(format!(
        "{word:6}  {:width$}  {}",
        check.name, check.message
    ));
    if let Some(hint) = &check.hint {
        out.line(format!("{:6}  {:width$}  -> {hint}", "", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::printed;

    fn check(name: &str, outcome: Outcome, hint: Option<&str>) -> Check {
        Check {
            name: name.to_owned(),
            ok: outcome != Outcome::Failed,
            outcome,
            message: "as found".to_owned(),
            hint: hint.map(str::to_owned),
            kind: None,
        }
    }

    #[test]
    fn one_aligned_line_a_check_and_one_a_hint() {
        let checks = vec![
            check("put", Outcome::Ok, None),
            check("app.db file", Outcome::Failed, Some("do so")),
            check("clock", Outcome::Note, None),
        ];
        let report = Report { ok: false, checks };
        let lines = [
            "ok      put          as found",
            "FAILED  app.db file  as found",
            "                     -> do so",
            "note    clock        as found",
            "",
            "1 of 3 checks failed.",
            "",
        ];
        assert_eq!(
            printed(false, |out| print_report(&report, out)),
            lines.join("\n")
        );
        let json = printed(true, |out| print_report(&report, out));
        assert!(
            json.starts_with(
                "{\"v\":1,\"ok\":false,\"checks\":[{\"name\":\"put\",\"ok\":true,\"outcome\":\"ok\",\
                 \"message\":\"as found\",\"hint\":null},"
            ),
            "{json}"
        );
        assert_eq!(json.lines().count(), 1);
    }
}
