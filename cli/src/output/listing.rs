//! What `list` prints (R117 to R120).

use walrust_core::restore::{
    DatabaseDescription, DatabaseList, DatabaseSummary, FileSummary, PointSummary,
};

use super::{Out, text};

/// The databases of a bucket, as lines or JSON.
pub(crate) fn print_list(list: &DatabaseList, out: &mut Out) {
    out.json(list);
    if list.databases.is_empty() {
        return out.line(format!("No databases in {}/", list.bucket));
    }
    out.line(format!("Databases in {}/:", list.bucket));
    for database in &list.databases {
        out.line("");
        print_database(database, out);
    }
}

fn print_database(database: &DatabaseSummary, out: &mut Out) {
    out.line(format!("  {}{}", database.name, foreign(database.format)));
    if let Some(error) = &database.error {
        let object = error
            .object
            .as_ref()
            .map_or_else(String::new, |object| format!("{object}: "));
        out.line(format!("    Error: {object}{}", error.message));
    }
    match &database.latest_snapshot {
        Some(snapshot) => {
            let time = snapshot
                .time
                .map_or_else(|| "at an unknown time".to_owned(), text::time);
            out.line(format!(
                "    Latest snapshot: {time} ({})",
                text::size(snapshot.bytes)
            ));
        }
        None if database.error.is_none() => out.line("    Latest snapshot: none"),
        None => {}
    }
    if let Some(segments) = database.segments {
        out.line(format!("    WAL segments: {segments}"));
    }
    if let Some(checksum) = database.checksum {
        let digits = checksum.to_string();
        out.line(format!(
            "    Checksum: {}...",
            digits.get(..12).unwrap_or(&digits)
        ));
    }
}

/// Files that another program wrote are marked with its name.
fn foreign(format: Option<&str>) -> String {
    match format {
        Some("walrust") | None => String::new(),
        Some(other) => format!(" ({other})"),
    }
}

/// The files and restore points of one database, as lines or JSON.
pub(crate) fn print_description(database: &DatabaseDescription, out: &mut Out) {
    out.json(database);
    let (name, format) = (&database.name, foreign(Some(database.format)));
    out.line(format!("{name}{format} in {}/{name}/:", database.bucket));
    out.line("");
    out.line(format!(
        "  Earliest restore point: {}",
        point(database.earliest)
    ));
    out.line(format!(
        "  Latest restore point:   {}",
        point(database.latest)
    ));
    out.line(format!(
        "  Restore points:         {}",
        database.points.len()
    ));
    if let Some(page_size) = database.page_size {
        out.line(format!(
            "  Page size:              {} bytes",
            page_size.get()
        ));
    }
    for step in &database.clock_steps {
        let (from, to) = (text::exact_time(step.from), text::exact_time(step.to));
        out.line(format!(
            "  Note: the clock went back from {from} to {to} at TXID {}",
            step.txid
        ));
    }
    for note in &database.notes {
        out.line(format!("  Note: {note}"));
    }
    print_files(&database.files, out);
}

fn point(point: Option<PointSummary>) -> String {
    match point {
        Some(PointSummary {
            txid,
            time: Some(time),
        }) => format!("{} (TXID: {txid})", text::exact_time(time)),
        Some(PointSummary { txid, time: None }) => format!("TXID: {txid}"),
        None => "none".to_owned(),
    }
}

fn print_files(files: &[FileSummary], out: &mut Out) {
    if !files.is_empty() {
        out.line("");
    }
    let rows: Vec<[String; 5]> = files.iter().map(row).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [a, b, c, d]: [usize; 4] = std::array::from_fn(width);
    for [file, kind, txids, time, size] in &rows {
        out.line(format!(
            "  {file:a$}  {kind:b$}  {txids:c$}  {time:d$}  {size}"
        ));
    }
}

/// Name, kind, transactions in decimal (R23), time, size.
fn row(file: &FileSummary) -> [String; 5] {
    // The level and the name; what stands before them is the same for all.
    let last: Vec<&str> = file.key.rsplitn(3, '/').take(2).collect();
    let name: Vec<&str> = last.into_iter().rev().collect();
    let txids = match (file.min_txid, file.max_txid) {
        (min, max) if min == max => format!("TXID: {max}"),
        (min, max) => format!("TXID: {min}-{max}"),
    };
    let time = file
        .last_commit
        .or(file.created)
        .map_or_else(|| "-".to_owned(), text::time);
    [
        name.join("/"),
        file.kind.to_owned(),
        txids,
        time,
        text::size(file.bytes),
    ]
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
