//! What `status`, `sync` and `detach` print.

use std::time::Duration;

use serde::Serialize;
use walrust_core::serve::{DatabaseReport, Detached, StatusReport, Synced};
use walrust_core::types::{Timestamp, Txid};

use super::text;

/// `sync --json`.
#[derive(Serialize)]
pub(crate) struct SyncReport<'s> {
    durable: bool,
    databases: &'s [Synced],
}

impl<'s> SyncReport<'s> {
    pub(crate) fn new(databases: &'s [Synced]) -> Self {
        Self {
            durable: databases.iter().all(|one| one.durable),
            databases,
        }
    }
}

/// `detach --json`.
#[derive(Serialize)]
pub(crate) struct DetachReport<'d> {
    pub(crate) databases: &'d [Detached],
}

/// One line for each database, in columns, and what stands in its way below it.
pub(crate) fn status(report: &StatusReport) -> Vec<String> {
    let head = [
        "NAME",
        "STATE",
        "TXID",
        "DURABLE",
        "LAG",
        "LAST SYNC",
        "WAL",
        "SPOOL",
    ];
    let rows: Vec<_> = report.databases.iter().map(row).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let lengths = cells.map(|cell| cell.chars().count());
            lengths.chain(head.get(column).map(|head| head.len())).max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let aligned = |cells: &[String]| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![aligned(&head.map(str::to_owned))];
    for (row, database) in rows.iter().zip(&report.databases) {
        lines.push(aligned(row));
        if let Some(error) = &database.error {
            let since = text::time(error.since);
            lines.push(format!("  since {since}: {}", error.message));
        }
    }
    if let Some(error) = &report.config_error {
        lines.push(format!("A newer configuration is not in use: {error}"));
    }
    lines
}

fn row(database: &DatabaseReport) -> [String; 8] {
    [
        database.name.to_string(),
        database.state.clone(),
        number(database.txid),
        number(database.durable_txid),
        lag(database.lag_seconds),
        time(database.last_sync),
        text::size(database.wal_bytes),
        text::size(database.spool_bytes),
    ]
}

fn number(txid: Option<Txid>) -> String {
    txid.map_or_else(|| "-".to_owned(), |txid| txid.get().to_string())
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), text::time)
}

fn lag(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) | Err(_) => "0".to_owned(),
        Ok(lag) => text::duration(lag),
    }
}

/// A database of which everything is durable.
pub(crate) fn synced(mark: &str, one: &Synced) -> String {
    let took = text::duration(Duration::from_millis(one.duration_ms));
    let txid = number(one.txid);
    format!("{mark} {}: durable up to TXID {txid} ({took})", one.name)
}

/// A database that is let alone, or is again attached.
pub(crate) fn detached(one: &Detached, ended: bool) -> String {
    if ended {
        return format!("{} is watched again", one.name);
    }
    let until = text::time(one.until);
    match (one.txid, one.durable_txid) {
        (txid, durable) if txid <= durable => format!(
            "{} is detached until {until}; everything is stored up to TXID {}",
            one.name,
            number(durable)
        ),
        (txid, durable) => format!(
            "{} is detached until {until}; stored up to TXID {}, on the local disk up to TXID {}",
            one.name,
            number(durable),
            number(txid)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_trouble_stands_below() {
        let report = serde_json::from_value(serde_json::json!({
            "version": "1", "pod": null, "mode": "watch", "config_hash": null, "config_error": null,
            "started": "2024-01-15T10:30:00Z", "paused": false, "databases": [{
                "name": "a-long-name.db", "path": "/a", "state": "lagging", "txid": 12, "durable_txid": 9,
                "lag_seconds": 2.5, "detached_until": null, "last_sync": "2024-01-15T10:30:00Z", "last_snapshot": null,
                "next_snapshot": null, "wal_bytes": 4_194_304, "spool_bytes": 0, "proven_txid": null,
                "proven_at": null, "lease": {"held": true, "epoch": 1, "lineage": null},
                "error": {"kind": "unavailable", "message": "no route", "since": "2024-01-15T10:31:00Z"}
            }]
        }));
        assert_eq!(
            status(&report.unwrap()),
            [
                "NAME            STATE    TXID  DURABLE  LAG   LAST SYNC            WAL     SPOOL",
                "a-long-name.db  lagging  12    9        2.5s  2024-01-15 10:30:00  4.0 MB  0 B",
                "  since 2024-01-15 10:31:00: no route",
            ]
        );
    }

    #[test]
    fn what_a_detached_database_still_owes_is_told() {
        let detached_at = |txid, durable| {
            let one = Detached {
                name: "a.db".parse().unwrap(),
                until: Timestamp::from_millis(1_705_314_600_000),
                txid: Txid::new(txid),
                durable_txid: Txid::new(durable),
            };
            detached(&one, false)
        };
        assert_eq!(
            detached_at(7, 7),
            "a.db is detached until 2024-01-15 10:30:00; everything is stored up to TXID 7"
        );
        assert!(detached_at(9, 7).ends_with("stored up to TXID 7, on the local disk up to TXID 9"));
    }
}
