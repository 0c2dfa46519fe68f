//! The status page for people: one document without scripts and without anything to fetch.

use std::fmt::{self, Display, Formatter};

use walrust_core::serve::{DatabaseReport, Reason, StatusReport};
use walrust_core::types::{Timestamp, Txid};

use crate::history::{History, MINUTES};

/// What a browser may do with the page: nothing but its own style and the empty icon.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page.css");

/// Width and height of a sparkline's drawing.
const CURVE: (f32, f32) = (240.0, 36.0);

/// Everything that the page shows.
pub(crate) struct Page<'a> {
    pub(crate) report: &'a StatusReport,
    pub(crate) unready: &'a [Reason],
    /// The bucket and the prefix in it.
    pub(crate) location: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) history: &'a History,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let name = report.pod.as_deref().unwrap_or("walrust");
        let (tone, word) = match self.unready {
            [] => ("good", "ready"),
            _ => ("bad", "not ready"),
        };
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=\"refresh\" content=\"15\"><meta name=\"color-scheme\" content=\"light dark\">\
             <link rel=\"icon\" href=\"data:,\"><title>{name}: {word}</title><style>{STYLE}</style></head>\n\
             <body><header><h1>{name}</h1><p class=\"{tone}\">{word}</p></header>\n<main>\n",
            name = Escaped(name)
        )?;
        self.process(f)?;
        self.troubles(f)?;
        let mut databases: Vec<_> = report.databases.iter().collect();
        // What needs somebody comes first; otherwise as they were named.
        databases.sort_by_key(|database| rank(database));
        for database in databases {
            self.database(f, database)?;
        }
        f.write_str("</main></body></html>\n")
    }
}

impl Page<'_> {
    fn process(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        f.write_str("<dl class=\"process\">")?;
        item(f, "mode", "Mode", &report.mode)?;
        item(f, "version", "Version", &report.version)?;
        item(
            f,
            "started",
            "Running since",
            Moment(Some(report.started), self.now),
        )?;
        let hash = report.config_hash.as_deref().unwrap_or("none");
        item(f, "config_hash", "Configuration", hash)?;
        item(f, "count", "Databases", report.databases.len())?;
        f.write_str("</dl>\n")
    }

    fn troubles(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.report.config_error {
            let error = Escaped(error);
            writeln!(
                f,
                "<p class=\"trouble\" role=\"alert\"><b>A changed configuration is refused;</b> the one before is in force: {error}</p>"
            )?;
        }
        if self.unready.is_empty() {
            return Ok(());
        }
        f.write_str("<ul class=\"trouble\">")?;
        for reason in self.unready {
            let (name, message) = (Escaped(&reason.database), Escaped(&reason.message));
            write!(f, "<li><b>{name}</b>: {message}</li>")?;
        }
        f.write_str("</ul>\n")
    }

    fn database(&self, f: &mut Formatter<'_>, database: &DatabaseReport) -> fmt::Result {
        let name = Escaped(database.name.as_str());
        let (tone, word) = (tone(database), database.state.replace('_', " "));
        write!(
            f,
            "<article data-database=\"{name}\"><h2>{name}</h2><p class=\"state {tone}\" data-field=\"state\" \
             data-value=\"{value}\">{word}</p>",
            value = Escaped(&database.state),
            word = Escaped(&word)
        )?;
        curve(f, &self.history.of(&database.name), database.lag_seconds)?;
        f.write_str("<dl>")?;
        let now = self.now;
        let lag = format!("{} s", database.lag_seconds);
        item(f, "lag_seconds", "Lag", lag)?;
        item(
            f,
            "durable_txid",
            "Stored up to TXID",
            Number(database.durable_txid),
        )?;
        item(f, "txid", "Captured up to TXID", Number(database.txid))?;
        item(
            f,
            "last_sync",
            "Last stored",
            Moment(database.last_sync, now),
        )?;
        item(
            f,
            "last_snapshot",
            "Last snapshot",
            Moment(database.last_snapshot, now),
        )?;
        item(
            f,
            "proven_at",
            "Last verified by a restore",
            Moment(database.proven_at, now),
        )?;
        item(
            f,
            "wal_bytes",
            "WAL",
            format!("{} bytes", database.wal_bytes),
        )?;
        item(
            f,
            "spool_bytes",
            "Waiting on disk",
            format!("{} bytes", database.spool_bytes),
        )?;
        item(f, "path", "File", &database.path)?;
        let stored = format!("{}/{}", self.location.trim_end_matches('/'), database.name);
        item(f, "bucket", "Bucket", stored)?;
        f.write_str("</dl>")?;
        if let Some(error) = &database.error {
            let (message, since) = (Escaped(&error.message), Moment(Some(error.since), now));
            write!(
                f,
                "<p class=\"trouble\">{message} <small>since {since}</small></p>"
            )?;
        }
        f.write_str("</article>\n")
    }
}

fn item(f: &mut Formatter<'_>, field: &str, title: &str, value: impl Display) -> fmt::Result {
    let value = value.to_string();
    // What is a time is marked up already, and holds nothing foreign.
    let is_time = value.starts_with("<time ");
    write!(f, "<div><dt>{title}</dt><dd data-field=\"{field}\">")?;
    match is_time {
        true => f.write_str(&value)?,
        false => write!(f, "{}", Escaped(&value))?,
    }
    f.write_str("</dd></div>")
}

/// The lag of the last hour: a line that ends now, on the right.
fn curve(f: &mut Formatter<'_>, lags: &[f32], now: f64) -> fmt::Result {
    let highest = lags.iter().copied().fold(0.0_f32, f32::max);
    // A second at least, so that an idle database shows no mountains.
    let (width, height) = CURVE;
    let (step, scale) = (width / (MINUTES - 1) as f32, highest.max(1.0));
    let begin = MINUTES.saturating_sub(lags.len());
    write!(
        f,
        "<svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Lag over the last hour: \
         at most {highest:.1} s, now {now} s\"><polyline points=\""
    )?;
    for (minute, lag) in lags.iter().enumerate() {
        let x = (begin + minute) as f32 * step;
        let y = (height - 2.0) - lag / scale * (height - 4.0);
        write!(f, "{x:.1},{y:.1} ")?;
    }
    f.write_str("\"/></svg>")?;
    write!(
        f,
        "<p class=\"scale\">last hour: at most {highest:.1} s behind</p>"
    )
}

fn rank(database: &DatabaseReport) -> u8 {
    match tone(database) {
        "bad" => 0,
        "waiting" => 1,
        _ => 2,
    }
}

fn tone(database: &DatabaseReport) -> &'static str {
    match (&database.error, database.state.as_str()) {
        (Some(_), _) | (None, "fenced" | "erroring") => "bad",
        (None, "in_sync" | "replica" | "paused") => "good",
        (None, _) => "waiting",
    }
}

struct Number(Option<Txid>);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(txid) => write!(f, "{}", txid.get()),
            None => f.write_str("none"),
        }
    }
}

/// A time and how long ago it was.
struct Moment(Option<Timestamp>, Timestamp);

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(Some(time), now) = self else {
            return f.write_str("never");
        };
        let seconds = now.millis_since(*time).max(0) / 1000;
        let (number, unit) = [(86_400, "d"), (3600, "h"), (60, "min")]
            .into_iter()
            .find(|(length, _)| seconds >= *length)
            .map_or((seconds, "s"), |(length, unit)| (seconds / length, unit));
        write!(
            f,
            "<time datetime=\"{time}\" title=\"{time}\">{number} {unit} ago</time>"
        )
    }
}

/// Text of others, in an element or in a quoted attribute.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (before, from) = rest.split_at(at);
            f.write_str(before)?;
            let mut characters = from.chars();
            f.write_str(match characters.next() {
                Some('&') => "&amp;",
                Some('<') => "&lt;",
                Some('>') => "&gt;",
                Some('"') => "&quot;",
                _ => "&#39;",
            })?;
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of databases with these names.
    pub(crate) fn report(names: &[&str]) -> StatusReport {
        let databases = names.iter().map(|name| {
            serde_json::json!({
                "name": name, "path": format!("/data/{name}"), "state": "in_sync", "txid": 7, "durable_txid": 6,
                "lag_seconds": 0.25, "detached_until": null, "last_sync": "2026-01-01T00:00:00Z",
                "last_snapshot": null, "next_snapshot": null, "wal_bytes": 4152, "spool_bytes": 0,
                "proven_txid": null, "proven_at": null,
                "lease": {"held": true, "epoch": 1, "lineage": null}, "error": null,
            })
        });
        let report = serde_json::json!({
            "version": "1", "pod": null, "mode": "watch", "config_hash": "0123456789ab", "config_error": null,
            "started": "2026-01-01T00:00:00Z", "paused": false, "databases": databases.collect::<Vec<_>>(),
        });
        serde_json::from_value(report).unwrap()
    }

    fn page(report: &StatusReport, unready: &[Reason]) -> String {
        let history = History::default();
        history.note(report, report.started);
        Page {
            report,
            unready,
            location: "s3://bucket/prefix",
            now: report.started.plus_millis(125_000),
            history: &history,
        }
        .to_string()
    }

    #[test]
    fn names_and_errors_of_others_stay_text() {
        let mut report = report(&["<script>alert('a')&\"</script>.db"]);
        report.config_error = Some("<img src=x>".to_owned());
        report.pod = Some("\"><s>".to_owned());
        let reason = Reason {
            database: "<i>".to_owned(),
            reason: "lagging",
            message: "<u>".to_owned(),
        };
        let page = page(&report, &[reason]);
        for foreign in ["<script", "<img", "\"><s>", "<i>", "<u>"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("&lt;script&gt;alert(&#39;a&#39;)&amp;&quot;"));
        assert!(page.contains("not ready"));
    }

    #[test]
    fn the_numbers_are_those_of_the_status_and_nothing_is_fetched() {
        let page = page(&report(&["a.db"]), &[]);
        for part in [
            "data-field=\"durable_txid\">6<",
            "data-field=\"txid\">7<",
            "data-field=\"lag_seconds\">0.25 s<",
            "data-field=\"bucket\">s3://bucket/prefix/a.db<",
            ">2 min ago<",
            "data-value=\"in_sync\">in sync<",
            "points=\"240.0,",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    }
}
