//! Names that somebody may have meant (R20).

use walrust_core::types::DatabaseName;

/// More are no help.
const MOST: usize = 5;

/// The names in `stored` that resemble `wanted`: the same but for case, extension or folder, or a typing
/// error away. Best first.
pub(crate) fn near<'n>(wanted: &DatabaseName, stored: &'n [DatabaseName]) -> Vec<&'n DatabaseName> {
    let mut near: Vec<_> = stored
        .iter()
        .filter_map(|name| Some((distance(wanted.as_str(), name.as_str())?, name)))
        .collect();
    near.sort();
    near.into_iter().map(|(_, name)| name).take(MOST).collect()
}

fn distance(wanted: &str, name: &str) -> Option<usize> {
    let (wanted, name) = (wanted.to_lowercase(), name.to_lowercase());
    let (wanted_file, file) = (last(&wanted), last(&name));
    if wanted_file == file {
        return Some(0);
    }
    if stem(wanted_file) == stem(file) {
        return Some(1);
    }
    let edits = strsim::osa_distance(&wanted, &name);
    // Two typing errors, but never half of the name.
    (edits <= 2.min(wanted.chars().count() / 2)).then_some(1 + edits)
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn stem(file: &str) -> &str {
    match file.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stem_case_folder_and_typing_errors_are_near() {
        let names: Vec<DatabaseName> = ["app.db", "prod/app.sqlite", "App.DB", "users.db", "x"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let shown = |wanted: &str| {
            let wanted = wanted.parse().unwrap();
            near(&wanted, &names)
                .into_iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(shown("app"), "App.DB app.db prod/app.sqlite");
        assert_eq!(shown("prod/app.db"), "App.DB app.db prod/app.sqlite");
        assert_eq!(shown("usres.db"), "users.db");
        assert_eq!(shown("orders.db"), "");
        assert_eq!(shown("y"), "");
    }
}
